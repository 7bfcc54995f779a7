"""Writing beside the scan goes, the scan stays, and writing inside it is reported."""

import cv2
import numpy as np
import pytest

from jaxmed.data.burnt_in import Box, find_scan, remove_burnt_in
from jaxmed.data.phantom_liver import PhantomLiverSource

FONT = cv2.FONT_HERSHEY_SIMPLEX
TEXT = (slice(8, 32), slice(8, 220))  # rows and columns of "DOE^JANE 1970"


@pytest.fixture(scope="module")
def scans():
    """Four sectors of 320 pixels."""
    source = PhantomLiverSource({"num_cases": 4, "phantom_size": 320})
    return [source.read(index)["image"] for index in range(4)]


def screen(scan, channels=3):
    """The scan on a black screen of 480 x 640, its left upper corner at row 120, column 160."""
    canvas = np.zeros((480, 640, channels), np.uint8)
    canvas[120:440, 160:480] = scan[..., None]
    return canvas if channels == 3 else canvas[..., 0].copy()


def write(canvas, text, where, color=(255, 255, 255), scale=0.6):
    cv2.putText(canvas, text, where, FONT, scale, color, 1, cv2.LINE_AA)


def covers(boxes, row, column):
    return any(box.x <= column < box.x + box.width and box.y <= row < box.y + box.height for box in boxes)


def test_writing_outside_goes_whatever_its_colour_and_the_scan_stays(scans):
    for scan in scans:
        empty = remove_burnt_in(screen(scan)).clean
        written = screen(scan)
        write(written, "DOE^JANE 1970", (10, 25))
        write(written, "ID 12345", (400, 25), (255, 120, 0))
        write(written, "MI 1.2", (560, 300), (90, 90, 90))
        finding = remove_burnt_in(written)
        np.testing.assert_array_equal(finding.clean, empty)
        assert covers(finding.removed, 20, 60) and covers(finding.removed, 295, 590)
        assert {box.kind for box in finding.removed if covers([box], 20, 440)} == {"colour"}
        assert finding.removed_share > 0.002
        middle = np.s_[200:360, 260:380]
        np.testing.assert_array_equal(finding.clean[middle], screen(scan)[middle])
        visible = screen(scan) > 40  # shadows at the border may turn black, and the sector's corners may go
        assert finding.clean[visible].astype(bool).mean() > 0.99


def test_a_scale_bar_goes_too(scans):
    canvas = screen(scans[0])
    canvas[100:420, 600:612] = np.linspace(255, 20, 320).astype(np.uint8)[:, None, None]
    finding = remove_burnt_in(canvas)
    assert finding.clean[:, 590:].max() == 0 and covers(finding.removed, 200, 605)


def test_gray_pictures_stay_gray_and_everything_else_is_unchanged(scans):
    canvas = screen(scans[1], channels=1)
    write(canvas, "DOE^JANE 1970", (10, 25), 255)
    before = canvas.copy()
    finding = remove_burnt_in(canvas)
    np.testing.assert_array_equal(canvas, before)
    assert finding.clean.shape == (480, 640) and finding.clean[TEXT].max() == 0
    changed = finding.clean != before
    assert (finding.clean[changed] == 0).all() and not (changed & finding.scan).any()


def test_jpeg_noise_around_writing_goes_with_it(scans):
    canvas = screen(scans[2])
    write(canvas, "DOE^JANE 1970", (10, 25))
    canvas = cv2.imdecode(cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)
    assert remove_burnt_in(canvas).clean[TEXT].max() <= 12


def test_writing_inside_stays_and_is_reported(scans):
    for scan in scans:
        canvas = screen(scan)
        assert not covers(remove_burnt_in(canvas).suspicious, 320, 330)
        write(canvas, "LIVER RT", (290, 325))
        finding = remove_burnt_in(canvas)
        assert covers(finding.suspicious, 320, 330)
        assert finding.clean[310:330, 290:380].max() == 255


def test_coloured_marks_inside_are_reported(scans):
    canvas = screen(scans[0])
    cv2.drawMarker(canvas, (320, 300), (0, 255, 255), cv2.MARKER_CROSS, 14, 1)
    boxes = [box for box in remove_burnt_in(canvas).suspicious if box.kind == "colour"]
    assert len(boxes) == 1 and covers(boxes, 300, 320)


def test_plain_scans_are_rarely_taken_for_writing():
    source = PhantomLiverSource({"num_cases": 24, "phantom_size": 256})
    flagged = [bool(remove_burnt_in(source.read(index)["image"]).suspicious) for index in range(24)]
    assert np.mean(flagged) < 0.35


def test_a_second_scan_beside_the_first_is_kept_and_reported(scans):
    canvas = np.zeros((360, 720), np.uint8)
    canvas[20:340, 10:330] = scans[0]
    canvas[20:340, 390:710] = scans[1]
    finding = remove_burnt_in(canvas)
    assert (finding.clean[:, 390:] > 40).sum() > 0.99 * (scans[1] > 40).sum()
    assert (finding.clean[:, :330] > 40).sum() > 0.99 * (scans[0] > 40).sum()
    assert [box.kind for box in finding.suspicious].count("textured") == 1


def test_regions_of_the_header_limit_the_scan(scans):
    canvas = screen(scans[0], channels=1)
    box = Box(160, 120, 320, 200, "scan")
    scan = find_scan(canvas, (box,))
    assert scan.any() and not scan[320:].any() and not scan[:, :160].any()


def test_a_picture_without_scan_has_no_region():
    canvas = np.zeros((200, 300), np.uint8)
    write(canvas, "REPORT", (30, 100), 255)
    finding = remove_burnt_in(canvas)
    assert not finding.scan.any() and finding.clean.max() == 0
