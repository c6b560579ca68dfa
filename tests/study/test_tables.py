"""Tables as public databases and spreadsheets write them: the right column, or one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewer.core.errors import FewerError
from fewer.study.tables import read_names, read_opinions, read_scores

KONIQ = '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"\n'
AGIQA = "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"


@pytest.mark.parametrize(
    ("text", "scores", "deviations"),
    [
        (KONIQ + '"10.jpg",0,0,25,73,7,105,3.828571,0.527278,63.7\n', {"10.jpg": 3.828571}, {"10.jpg": 0.527278}),
        ("dist_img,ref_img,dmos,var\nI1_2.png,I1.png,4.57,0.25\n", {"I1_2.png": 4.57}, {"I1_2.png": 0.5}),
        (AGIQA + 'a.jpg,"red, blue",,,,2.5,0.3,1.9,0.4\n', {"a.jpg": 2.5}, {"a.jpg": 0.3}),
        ("Image name,MOS,Brightness\n00001.jpg,70,45\n", {"00001.jpg": 70.0}, {}),
        ("MOS;file\n3,25;a.png\n-1,5;b.png\n", {"a.png": 3.25, "b.png": -1.5}, {}),
        ("\ufefffile\tscore\na, b.png\t4\n\n", {"a, b.png": 4.0}, {}),
        # numbers with a comma, without a heading: as many commas as semicolons
        ("a.png;3,5\nb.png;4\n", {"a.png": 3.5, "b.png": 4.0}, {}),
        ("a.png;3,5;0,5\n", {"a.png": 3.5}, {"a.png": 0.5}),
        ("a.png\t3,5\n", {"a.png": 3.5}, {}),
        ("file\tMOS\na.png\t3,5\n", {"a.png": 3.5}, {}),
        ("a;b.png,3\nc.png,4\n", {"a;b.png": 3.0, "c.png": 4.0}, {}),
        ("\ufeffa.png,3\nb.png,4\n", {"a.png": 3.0, "b.png": 4.0}, {}),
        ("what,ever\na.png,3\n", {"a.png": 3.0}, {}),
        ("file,score,votes\na.png,3,17\n", {"a.png": 3.0}, {}),
        ("a.png,3,0.5\n", {"a.png": 3.0}, {"a.png": 0.5}),
        # TID2013: the number first, and spaces
        ("5.51429 I01_01_1.bmp\n5.56757 i01_01_2.bmp\n", {"I01_01_1.bmp": 5.51429, "i01_01_2.bmp": 5.56757}, {}),
        ("3,a.png\n4,b.png\n", {"a.png": 3.0, "b.png": 4.0}, {}),
        ("name_image,x,mos_image,mos_patch_std\na.jpg,7,72.5,1\n", {"a.jpg": 72.5}, {}),
        ("set,image_name,quality_mos,quality_std\ntest,a.jpg,0.5,1\n", {"a.jpg": 0.5}, {}),
        ("image|MOS\na.png|3.5\n", {"a.png": 3.5}, {}),
    ],
)
def test_the_columns_are_found_by_their_names(tmp_path: Path, text, scores, deviations) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found = read_opinions(tmp_path / "t.csv")
    assert found.scores == scores and found.deviations == pytest.approx(deviations)
    assert read_scores(tmp_path / "t.csv") == scores


def test_what_was_taken_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(KONIQ + "a.jpg,0,0,25,73,7,105,3.8,0.5,63.7\n")
    assert read_opinions(tmp_path / "t.csv").note == "columns image_name, MOS, SD of t.csv"
    (tmp_path / "t.csv").write_text("dist_img,ref_img,dmos\na.jpg,b.jpg,3\n")
    assert "a high dmos is bad" in read_opinions(tmp_path / "t.csv").note
    (tmp_path / "t.csv").write_text("file,score\na.jpg,3\n")
    assert not read_opinions(tmp_path / "t.csv").note


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,c1,c2,c3\na.png,1,2,3\n", r"4 columns \(name, c1, c2, c3\), and no heading says"),
        ("a.png,1,2,3\n", "4 columns, and no heading says"),
        ("rater,image,level\nann,a.png,3\n", "a column rater, so it holds the votes of single people"),
        ("file,score\na.png,3,5\n", "line 2 has 3 cells, and the heading 2"),
        ("file,MOS,SD\na.png,3,wide\n", "line 2 must be a file, a number and its deviation"),
        ("file,MOS\na.png,good\n", "line 2 must be a file and a number"),
        ("file,MOS\n,3\n", "line 2 must be a file and a number"),
        ("x\n", "holds no score"),
        ("file,score\n", "holds no score"),
        ("name,c1,mos_image,mos_patch\na.png,1,2,3\n", "no heading says which one"),
        ("name,c1,my_mos,c2\na.png,1,good,3\n", "no heading says which one"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(tmp_path: Path, text, says) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FewerError, match=says):
        read_opinions(tmp_path / "t.csv")


def test_a_list_of_names_keeps_its_commas(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffa, b.png\nc;d.png\na, b.png\n", encoding="utf-8")
    assert read_names(tmp_path / "names.txt") == ["a, b.png", "c;d.png"]
    (tmp_path / "names.csv").write_text("rank;name\n1;a.png\n2;b.png\n")
    assert read_names(tmp_path / "names.csv") == ["a.png", "b.png"]
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(FewerError, match="names no image"):
        read_names(tmp_path / "none.txt")


def test_tables_as_spreadsheets_save_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file\tscore\nü.png\t3\n", encoding="utf-16")
    assert read_scores(tmp_path / "t.csv") == {"ü.png": 3.0}
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(FewerError, match="save it as a table of CSV"):
        read_scores(tmp_path / "t.xlsx")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfea")
    with pytest.raises(FewerError, match="is damaged"):
        read_scores(tmp_path / "t.csv")
