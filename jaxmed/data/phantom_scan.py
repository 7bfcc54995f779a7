"""B-mode image formation: scatterers -> radio-frequency lines -> envelope -> log compression.

The usual linear model (Bamber and Dickinson, Phys. Med. Biol. 25, 1980): the echo is the tissue's reflectivity
convolved with a point-spread function that is separable at each depth. Lengths are in mm, levels in dB.
The carrier is scaled to the pixel grid; speckle statistics depend on the envelope of the pulse only.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float, UInt8

OVERSAMPLE = 2  # axial samples per pixel row: the carrier needs two samples where the envelope needs one
CARRIER = 0.25  # cycles per axial sample
DB = np.float32(np.log(10) / 20)  # amplitude = exp(DB * level)


@dataclass(frozen=True)
class Scanner:
    """One machine setting."""

    pixel: float  # mm
    axial: float  # standard deviation of the pulse's envelope, mm
    lateral: float  # standard deviation of the beam at its focus, mm
    focus: float  # depth of the focus, mm
    rayleigh: float  # distance from the focus at which the beam is sqrt(2) times wider, mm
    smoothing: float  # share of the locally averaged power, as spatial compounding and speckle filters leave it
    dynamic_range: float  # dB between black and white
    gain: float  # dB
    gamma: float  # display curve
    noise: float = -46.0  # electronic noise before the depth gain, dB


def sample_scanner(rng: np.random.Generator, pixel: float) -> Scanner:
    """Resolution and gain differ from picture to picture, as between operators; they say nothing about the class."""
    return Scanner(
        pixel=pixel,
        axial=rng.uniform(0.09, 0.14),
        lateral=rng.uniform(0.15, 0.24),
        focus=rng.uniform(10, 20),
        rayleigh=rng.uniform(10, 18),
        smoothing=rng.uniform(0.55, 0.85),
        dynamic_range=rng.uniform(50, 60),
        gain=rng.normal(0, 2.5),
        gamma=rng.uniform(0.95, 1.3),
    )


def echo_power(scatterers: Float[np.ndarray, "samples columns"], scanner: Scanner) -> Float[np.ndarray, "rows columns"]:
    """Squared envelope of the echo lines, one row per pixel; unit white noise gives unit mean power.

    Keeping the pulse's spectrum on positive frequencies gives the analytic signal, so its magnitude is the Hilbert
    envelope. That half band needs half the samples: an inverse transform of half the length gives every second one,
    exactly. The beam widens away from the focus, so it is applied row by row, in lateral frequency.
    """
    samples, columns = scatterers.shape
    rows = samples // OVERSAMPLE
    cycles = np.arange(rows, dtype=np.float32) / samples
    width = scanner.pixel / OVERSAMPLE / (2 * np.pi * scanner.axial)
    pulse = np.exp(-0.5 * ((cycles - CARRIER) / width) ** 2)
    pulse *= rows / np.sqrt(samples * (pulse**2).sum())
    lines = scipy.fft.ifft(scipy.fft.rfft(scatterers, axis=0)[:rows] * pulse[:, None], axis=0)
    depth = (np.arange(rows, dtype=np.float32) + 0.5)[:, None] * scanner.pixel
    sigma = beam_width(scanner, depth) / scanner.pixel
    across = scipy.fft.fftfreq(columns).astype(np.float32)
    beam = np.exp(-2 * (np.pi * across * sigma) ** 2)
    beam /= np.sqrt((beam**2).mean(1, keepdims=True))
    lines = scipy.fft.ifft(scipy.fft.fft(lines, axis=1) * beam, axis=1)
    return lines.real**2 + lines.imag**2


def beam_width(scanner: Scanner, depth: np.ndarray) -> np.ndarray:
    """Lateral standard deviation in mm at each depth of a Gaussian beam."""
    return scanner.lateral * np.sqrt(1 + ((depth - scanner.focus) / scanner.rayleigh) ** 2)


def display(
    power: Float[np.ndarray, "rows columns"],
    loss: Float[np.ndarray, "rows columns"],
    depth_gain: Float[np.ndarray, "rows 1"],
    scanner: Scanner,
) -> UInt8[np.ndarray, "rows columns"]:
    """Attenuation (`loss`, dB), electronic noise, compounding, depth gain and log compression to gray levels."""
    power = power * np.exp(-2 * DB * loss) + np.float32(10 ** (scanner.noise / 10))
    power += np.float32(scanner.smoothing) * (cv2.GaussianBlur(power, (5, 5), 0.9) - power)
    level = 10 * np.log10(power) + depth_gain + np.float32(scanner.gain)
    gray = np.clip(level / np.float32(scanner.dynamic_range) + np.float32(0.62), 0, 1) ** np.float32(scanner.gamma)
    return np.round(255 * gray).astype(np.uint8)
