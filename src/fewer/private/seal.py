"""SEAL through TenSEAL: the back end that encrypts. Its secret and public halves are classes of their own."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.private.security import Parameters

__all__ = ["Client", "Evaluator", "has_seal", "make_keys"]

_HEADER = bytes([0x5E, 0xA1, 0x10])


def has_seal() -> bool:
    """Whether TenSEAL is installed."""
    return importlib.util.find_spec("tenseal") is not None


def _api() -> Any:
    try:
        import tenseal.sealapi as api
    except ImportError:
        raise FewerError('encrypted inference needs TenSEAL; run: pip install "fewer[private]"') from None
    return api


def _context(parameters: Parameters) -> Any:
    api = _api()
    made = api.EncryptionParameters(api.SCHEME_TYPE.CKKS)
    made.set_poly_modulus_degree(parameters.degree)
    made.set_coeff_modulus(api.CoeffModulus.Create(parameters.degree, list(parameters.bits)))
    context = api.SEALContext(made, True, api.SEC_LEVEL_TYPE.TC128)  # refuses what is less secure
    if not context.parameters_set():
        raise FewerError(f"SEAL refuses these parameters: {context.parameters_error_message()}")
    return context


def to_bytes(thing: Any) -> bytes:
    """A SEAL object in its own format; the API writes to files only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # a secret key is nobody else's, not for a moment
        thing.save(str(path))
        return path.read_bytes()


def _load(kind: str, context: Any, data: bytes, what: str) -> Any:
    """Read a SEAL object; whatever is wrong with it becomes one sentence."""
    if len(data) < 16 or data[:3] != _HEADER or int.from_bytes(data[8:16], "little") != len(data):
        raise FewerError(f"{what} is cut off or is none: {len(data)} bytes; send it again")
    found = getattr(_api(), kind)(*([context] if kind == "Ciphertext" else []))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        path.write_bytes(data)
        try:
            found.load(context, str(path))
        except (RuntimeError, ValueError, IndexError) as error:
            raise FewerError(
                f"{what} does not belong to this circuit's parameters ({error}); make keys again"
            ) from None
    return found


def make_keys(parameters: Parameters, turns: Iterable[int]) -> tuple[bytes, dict[str, bytes]]:
    """A secret key, and what a server needs: ``relin`` and ``galois`` keys for the circuit's rotations.

    Raises
    ------
    FewerError
        Without TenSEAL, or for parameters that are not secure.
    """
    api, context = _api(), _context(parameters)
    generator = api.KeyGenerator(context)
    relin, galois = api.RelinKeys(), api.GaloisKeys()
    generator.create_relin_keys(relin)
    # rotations are powers of 3 modulo twice the degree; lists without negative numbers are taken as such elements
    elements = sorted({pow(3, turn % parameters.slots, 2 * parameters.degree) for turn in turns} or {3})
    generator.create_galois_keys(elements, galois)
    return to_bytes(generator.secret_key()), {"relin": to_bytes(relin), "galois": to_bytes(galois)}


class Client:
    """Encrypts and decrypts with the secret key, which stays here.

    Parameters
    ----------
    parameters
        Of the circuit.
    secret
        Of :func:`make_keys`.
    """

    def __init__(self, parameters: Parameters, secret: bytes) -> None:
        api = _api()
        self.parameters, self._context = parameters, _context(parameters)
        key = _load("SecretKey", self._context, secret, "the secret key")
        self._encoder = api.CKKSEncoder(self._context)
        self._encryptor, self._decryptor = api.Encryptor(self._context, key), api.Decryptor(self._context, key)

    def encrypt(self, values: np.ndarray) -> bytes:
        """A vector of slots as the bytes of a ciphertext."""
        api = _api()
        plain, found = api.Plaintext(), api.Ciphertext(self._context)
        try:
            self._encoder.encode(np.asarray(values, dtype=float).tolist(), 2.0**self.parameters.input_bits, plain)
        except (ValueError, RuntimeError) as error:  # SEAL's own words are about its parameters
            largest = float(np.abs(values).max())
            raise FewerError(f"a number of {largest:g} does not fit into a ciphertext ({error})") from None
        self._encryptor.encrypt_symmetric(plain, found)
        return to_bytes(found)

    def decrypt(self, data: bytes) -> np.ndarray:
        """Slots of a ciphertext. With another key than it was made with, they are noise."""
        plain = _api().Plaintext()
        self._decryptor.decrypt(_load("Ciphertext", self._context, data, "the answer"), plain)
        return np.asarray(self._encoder.decode_double(plain))


class Evaluator:
    """The back end of a server: evaluation keys, no secret key.

    Parameters
    ----------
    parameters
        Of the circuit.
    relin, galois
        Of :func:`make_keys`.
    """

    def __init__(self, parameters: Parameters, relin: bytes, galois: bytes) -> None:
        api = _api()
        self.parameters, self._context = parameters, _context(parameters)
        self._relin = _load("RelinKeys", self._context, relin, "the relinearisation key")
        self._galois = _load("GaloisKeys", self._context, galois, "the set of rotation keys")
        self._encoder, self._do = api.CKKSEncoder(self._context), api.Evaluator(self._context)
        self._ids, self._primes = [], []
        data = self._context.first_context_data()
        while data is not None:
            self._ids.append(list(data.parms_id()))
            self._primes.append(float(data.parms().coeff_modulus()[-1].value()))
            data = data.next_context_data()
        self._ids.reverse()  # by levels left
        self._primes.reverse()
        self._ciphertext = api.Ciphertext

    def load(self, data: bytes) -> Any:
        """A fresh ciphertext from its bytes.

        Raises
        ------
        FewerError
            When it is cut off, of other parameters, or not fresh.
        """
        found = _load("Ciphertext", self._context, data, "the ciphertext")
        if found.size() != 2 or self.level(found) != self.parameters.levels:
            raise FewerError("the ciphertext is not a fresh one; encrypt the image again")
        return found

    def level(self, x: Any) -> int:
        """Levels left."""
        return int(x.coeff_modulus_size()) - 1

    def _scale(self) -> float:
        return 2.0**self.parameters.scale_bits

    def prime(self, level: int) -> float:
        """What a rescaling divides by at a level."""
        return self._primes[level]

    def encode_weights(self, values: np.ndarray, level: int, scale: float) -> Any:
        """At the scale with which the rescaled product has the scale of fresh ciphertexts.

        Raises
        ------
        FewerError
            When the primes leave too few bits for weights: they were chosen for another circuit.
        """
        mine = self._scale() * self._primes[level] / scale
        if mine < 2.0**10:
            raise FewerError("these parameters were made for another circuit; compile the network again")
        return self._encode(values, level, mine)

    def _encode(self, values: np.ndarray, level: int, scale: float) -> Any:
        plain = _api().Plaintext()
        try:
            self._encoder.encode(np.asarray(values, dtype=float).tolist(), self._ids[level], scale, plain)
        except (ValueError, RuntimeError) as error:
            largest = float(np.abs(values).max())
            raise FewerError(f"a weight of {largest:g} does not fit into these parameters ({error})") from None
        return plain

    def multiply_plain(self, x: Any, weights: Any) -> Any:
        """Slot by slot."""
        found = self._ciphertext(self._context)
        self._do.multiply_plain(x, weights, found)
        return found

    def square(self, x: Any) -> Any:
        """Slot by slot, relinearised."""
        found = self._ciphertext(self._context)
        self._do.square(x, found)
        self._do.relinearize_inplace(found, self._relin)
        return found

    def rescale(self, x: Any) -> Any:
        """One level down."""
        self._do.rescale_to_next_inplace(x)
        return x

    def add(self, x: Any, y: Any) -> Any:
        """Both of one level and scale."""
        found = self._ciphertext(self._context)
        self._do.add(x, y, found)
        return found

    def scale(self, x: Any) -> float:
        """What the numbers of a ciphertext are multiplied with."""
        scale: Any = x.scale() if callable(x.scale) else x.scale
        return float(scale)

    def encode_like(self, x: Any, values: np.ndarray) -> Any:
        """A vector in the clear, at a ciphertext's own level and scale."""
        return self._encode(values, self.level(x), self.scale(x))

    def add_plain(self, x: Any, plain: Any) -> Any:
        """A vector that was encoded like the ciphertext."""
        found = self._ciphertext(self._context)
        self._do.add_plain(x, plain, found)
        return found

    def lower(self, x: Any, level: int) -> Any:
        """The same numbers at a lower level."""
        found = self._ciphertext(self._context)
        self._do.mod_switch_to(x, self._ids[level], found)
        return found

    def rotate(self, x: Any, turn: int) -> Any:
        """Slots to the left."""
        found = self._ciphertext(self._context)
        self._do.rotate_vector(x, turn, self._galois, found)
        return found
