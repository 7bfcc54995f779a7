"""Every kind of image file has a rule; none becomes a silent default."""

import cv2
import numpy as np
import pytest

from jaxmed.data import image_io
from jaxmed.errors import UserError

GRAY = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30).astype(np.uint8)
LESION = np.zeros((20, 30), np.uint8)
LESION[5:12, 8:20] = 1


def png(pixels, *options) -> bytes:
    return cv2.imencode(".png", pixels, options)[1].tobytes()


def with_alpha(pixels, alpha) -> np.ndarray:
    return np.dstack([pixels, pixels, pixels, np.full_like(pixels, alpha)])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_lossless_gray_files_come_back_as_they_are(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), GRAY)
    np.testing.assert_array_equal(image_io.decode_gray(path), GRAY)


def test_jpeg_comes_back_nearly_as_it_is():
    smooth = cv2.GaussianBlur(LESION * 200, (9, 9), 3)
    decoded = image_io.decode_gray(cv2.imencode(".jpg", smooth)[1].tobytes())
    assert np.abs(decoded.astype(int) - smooth).max() < 12


def test_gray_saved_as_rgb_becomes_gray():
    np.testing.assert_array_equal(image_io.decode_gray(png(np.dstack([GRAY] * 3))), GRAY)


def test_small_coloured_marks_pass():
    picture = np.dstack([GRAY] * 3)
    picture[:2, :3] = (0, 255, 255)
    assert image_io.decode_gray(png(picture)).shape == GRAY.shape


def test_colour_pictures_are_refused():
    with pytest.raises(UserError, match="doppler.png: a colour picture.*Doppler"):
        image_io.decode_gray(png(np.dstack([GRAY, GRAY[::-1], GRAY])), "doppler.png")


def test_an_opaque_alpha_channel_is_dropped():
    np.testing.assert_array_equal(image_io.decode_gray(png(with_alpha(GRAY, 255))), GRAY)
    np.testing.assert_array_equal(image_io.decode_mask(png(with_alpha(LESION, 255))), LESION)


@pytest.mark.parametrize("decode", [image_io.decode_gray, image_io.decode_mask])
def test_transparent_pixels_are_refused(decode):
    with pytest.raises(UserError, match="a.png: has transparent pixels.*without alpha"):
        decode(png(with_alpha(GRAY, 128)), "a.png")


def test_16_bit_images_are_refused_with_the_way_to_convert_them():
    with pytest.raises(UserError, match="scan.png: uint16.*convertScaleAbs"):
        image_io.decode_gray(png(GRAY.astype(np.uint16) * 100), "scan.png")


@pytest.mark.parametrize("kept", [0, 10, 200, -20])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff"])
def test_truncated_files_are_refused(suffix, kept):
    whole = cv2.imencode(suffix, np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8))[1].tobytes()
    with pytest.raises(UserError, match="broken.*(empty|corrupt)"):
        image_io.decode_gray(whole[:kept], "broken")


def test_a_file_with_a_flipped_byte_is_refused():
    content = bytearray(png(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(UserError, match="corrupt"):
        image_io.decode_gray(bytes(content), "flipped.png")


def test_a_missing_file_and_a_text_file_are_named(tmp_path):
    with pytest.raises(UserError, match="nothing.png: cannot be read"):
        image_io.decode_gray(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UserError, match="text.png: not a readable"):
        image_io.decode_gray(tmp_path / "text.png")


@pytest.mark.parametrize(
    "content",
    [
        png(LESION),
        png(LESION * 255),
        png(LESION, cv2.IMWRITE_PNG_BILEVEL, 1),
        png(LESION.astype(np.uint16) * 7),
        png(np.dstack([LESION * 0, LESION * 0, LESION * 200])),
        cv2.imencode(".bmp", LESION * 255)[1].tobytes(),
    ],
    ids=["0/1", "0/255", "1 bit", "16 bit", "red on black", "bmp"],
)
def test_any_nonzero_pixel_of_a_mask_is_lesion(content):
    mask = image_io.decode_mask(content)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, LESION)


def test_jpeg_masks_do_not_grow_by_their_ringing():
    content = cv2.imencode(".jpg", LESION * 255, (cv2.IMWRITE_JPEG_QUALITY, 60))[1].tobytes()
    assert (cv2.imdecode(np.frombuffer(content, np.uint8), 0) > 0).sum() > LESION.sum() * 1.1
    np.testing.assert_array_equal(image_io.decode_mask(content), LESION)
    with pytest.raises(UserError, match="save masks as PNG"):
        image_io.decode_mask(cv2.imencode(".jpg", LESION * 9)[1].tobytes())


def test_a_mask_of_another_size_names_both_files_and_sizes():
    with pytest.raises(UserError, match=r"m.png: the mask is 30 x 19 but its image i.png is 30 x 20"):
        image_io.check_same_size(GRAY, LESION[1:], "i.png", "m.png")


def test_several_masks_are_united():
    other = np.zeros_like(LESION)
    other[15:18, 2:5] = 1
    assert image_io.unite([LESION, other], ["a", "b"]).sum() == LESION.sum() + 9
    with pytest.raises(UserError, match="b: the mask is 30 x 10"):
        image_io.unite([LESION, other[:10]], ["a", "b"])
