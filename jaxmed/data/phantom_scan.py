"""B-mode image formation: scatterers -> radio-frequency lines -> envelope -> log compression.

The model is the usual linear one (Bamber and Dickinson, Phys. Med. Biol. 1980): the echo signal is the tissue's
reflectivity convolved with a point-spread function, separable at each depth. Lengths are in mm.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Float, UInt8

OVERSAMPLE = 2  # axial samples per pixel row: the pulse's carrier needs more than one


@dataclass(frozen=True)
class Scanner:
    """One machine setting: resolution in mm, gains in dB."""

    pixel: float  # mm
    axial: float = 0.17  # standard deviation of the pulse's envelope, mm
    lateral: float = 0.26  # standard deviation of the beam at its focus, mm
    focus: float = 16.0  # depth of the focus, mm
    rayleigh: float = 14.0  # depth over which the beam widens by sqrt(2), mm
    dynamic_range: float = 55.0  # dB shown between black and white
    gain: float = 0.0  # dB
    noise: float = -48.0  # electronic noise before the depth gain, dB
    gamma: float = 1.0  # display curve


def beam_width(scanner: Scanner, depth: np.ndarray) -> np.ndarray:
    """Lateral standard deviation in mm at each depth: narrowest at the focus (Gaussian beam)."""
    return scanner.lateral * np.sqrt(1.0 + ((depth - scanner.focus) / scanner.rayleigh) ** 2)


def echo_envelope(scatterers: Float[np.ndarray, "rows columns"], scanner: Scanner) -> Float[np.ndarray, "rows columns"]:
    """Envelope of the beam-formed lines for a real reflectivity map of OVERSAMPLE rows per pixel.

    Convolving with the pulse and taking the Hilbert envelope is one multiplication in frequency: the pulse's spectrum
    kept on positive frequencies gives the analytic signal. The beam varies with depth, so it is applied line by line.
    """
    rows, columns = scatterers.shape
    step = scanner.pixel / OVERSAMPLE
    cycles = scipy.fft.fftfreq(rows).astype(np.float32)
    width = 1.0 / (2 * np.pi * scanner.axial / step)
    pulse = np.where(cycles > 0, np.exp(-0.5 * ((cycles - 0.25) / width) ** 2), 0).astype(np.float32)
    lines = scipy.fft.fft(scatterers, axis=0)
    lines = scipy.fft.ifft(lines * pulse[:, None], axis=0)
    sigma = beam_width(scanner, np.arange(rows) * step)[:, None] / scanner.pixel
    across = scipy.fft.fftfreq(columns)[None, :]
    beam = np.exp(-2 * (np.pi * across * sigma) ** 2) * np.sqrt(sigma)
    lines = scipy.fft.ifft(scipy.fft.fft(lines, axis=1) * beam.astype(np.float32), axis=1)
    return np.abs(lines) / np.float32(pulse.std() * 0.8)


def detect(
    envelope: Float[np.ndarray, "rows columns"],
    attenuation: Float[np.ndarray, "rows columns"],
    depth_gain: Float[np.ndarray, "rows 1"],
    scanner: Scanner,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w"]:
    """Attenuation, electronic noise, depth gain, log compression and the display curve; pixel rows are averaged."""
    power = envelope**2 * np.power(10, attenuation / 10) + rng.exponential(10 ** (scanner.noise / 10), (1, 1))
    rows, columns = power.shape
    power = power.reshape(rows // OVERSAMPLE, OVERSAMPLE, columns).mean(1)
    level = 10 * np.log10(power + 1e-12) + depth_gain[::OVERSAMPLE] + scanner.gain
    gray = np.clip(level / scanner.dynamic_range + 0.72, 0, 1) ** scanner.gamma
    return np.round(255 * gray).astype(np.uint8)
