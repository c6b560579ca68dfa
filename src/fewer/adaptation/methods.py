"""The table of adaptation methods."""

from __future__ import annotations

from collections.abc import Callable

from fewer.adaptation.baselines import curves, fourier, histogram, source_only, synthesis, target_oracle
from fewer.adaptation.contrasts import contrasts
from fewer.adaptation.le_uda import le_uda, mt_uda
from fewer.adaptation.ms_mt import ms_mt
from fewer.adaptation.ours import ours
from fewer.adaptation.problem import Adapted, Problem, Work
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.teachers import mean_teacher, self_training
from fewer.core.methods import Method, MethodTable

__all__ = ["METHODS"]

METHODS: MethodTable[Callable[[Problem, AdaptationSettings, Work], Adapted]] = MethodTable(
    "adaptation method",
    [
        Method("ours", ours, "trains source-only, self-training, curves and contrasts; the most trusted goes on"),
        Method("contrasts", contrasts, "source, random contrasts, then plausible pseudo-labels"),
        Method("source-only", source_only, "no adaptation: trains on the source as it is"),
        Method("target-oracle", target_oracle, "trains on target masks; for benchmarks only", "", ("target-labels",)),
        Method("histogram", histogram, "source images get the histograms of target images"),
        Method("fda", fourier, "source images get low frequencies of target images", "Yang and Soatto 2020, FDA"),
        Method("curves", curves, "source images get random intensity curves", "after Zhou et al. 2019, Models Genesis"),
        Method("synthesis", synthesis, "images are painted from label maps", "Billot et al. 2023, SynthSeg"),
        Method("self-training", self_training, "source, then plausible predictions of the target too"),
        Method("mean-teacher", mean_teacher, "a mean teacher on target images", "French et al. 2018"),
        Method("ms-mt", ms_mt, "translator, multi-scale mean teacher, self-training", "MS-MT (BrainLes 2022)"),
        Method("mt-uda", mt_uda, "two teachers over cycles of translations", "MT-UDA (MICCAI 2021)"),
        Method("le-uda", le_uda, "two teachers and adversarial learning, few labels", "LE-UDA (TMI 2022)"),
    ],
)
"""Rows are called with the problem, the settings and how the work is done."""
