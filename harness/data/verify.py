"""What is on the disk, compared with what is published of MVTec AD: counts, sides, channels, masks, file by file.

Nothing is believed before it is looked at: names are listed without following links, at most where the layout has
folders; a file is opened only if it is a regular one of a bounded size, and decoded only if its header tells the
published side, so that a small file that unfolds to gigabytes is named and not unfolded.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from harness.categories import CategoryFacts, mvtec_ad
from harness.dataset import GOOD
from harness.images import inspect_image, inspect_mask, read_header, read_image
from harness.progress import Reporter
from profiles.errors import ConfigError, DataError

SHOWN_NAMES = 5
EXTRAS = {"license.txt", "readme.txt"}
LARGEST_NUMBER = 10_000
"""Larger ones in a name are no numbering of the data set's."""

WORKERS = min(8, os.cpu_count() or 1)


class Finding(NamedTuple):
    """What is off: where, relative to the root."""

    path: str
    got: str
    expected: str


class Counts(NamedTuple):
    """How many files of each kind a category has."""

    train_good: int
    test_good: int
    test_defective: int
    defect_types: int
    masks: int


class CategoryReport(NamedTuple):
    """One category: what was counted, what was to be, what is off."""

    name: str
    got: Counts
    expected: Counts
    findings: tuple[Finding, ...]


class _Folder(NamedTuple):
    """The regular files and the folders of a folder, by name; hidden ones are left out."""

    files: list[str]
    folders: list[str]


class _Check(NamedTuple):
    """A file to open: an image, or a mask."""

    path: Path
    is_mask: bool


class _Inspection:
    """The look at one category: walks it, and collects what is off and which files to open."""

    def __init__(self, root: Path, facts: CategoryFacts) -> None:
        self._root = root
        self._facts = facts
        self._home = root / facts.category
        self.findings: list[Finding] = []
        self.checks: list[_Check] = []
        self.counts = self._walk()

    def _walk(self) -> Counts:
        """List the category, name what does not belong, and return the counts."""
        if not os.path.isdir(self._home):  # noqa: PTH112 - Path.is_dir raises where it may not look
            self._note(self._home, "no folder", "the category")
            return Counts(0, 0, 0, 0, 0)
        self._list(self._home, folders={"train", "test", "ground_truth"}, files=EXTRAS.__contains__)
        self._list(self._home / "train", folders={GOOD})
        train = self._pngs(self._home / "train" / GOOD)
        test = {name: self._pngs(self._home / "test" / name) for name in self._list(self._home / "test").folders}
        truth = self._list(self._home / "ground_truth").folders
        masks = {name: self._pngs(self._home / "ground_truth" / name, is_mask=True) for name in truth}
        self._pair(test, masks)
        defects = [name for name in test if name != GOOD]
        counts = Counts(
            len(train),
            len(test.get(GOOD, [])),
            sum(len(test[name]) for name in defects),
            len(defects),
            sum(len(files) for files in masks.values()),
        )
        self._compare(counts)
        self._gaps("train/good", train, self._facts.train_good)
        self._gaps("test/good", test.get(GOOD, []), self._facts.test_good)
        for name in defects:
            self._gaps(f"test/{name}", test[name], None)
        return counts

    def _note(self, path: Path, got: str, expected: str) -> None:
        self.findings.append(Finding(_printable(str(path.relative_to(self._root))), got, expected))

    def _list(
        self, folder: Path, *, folders: set[str] | None = None, files: Callable[[str], bool] = lambda _: False
    ) -> _Folder:
        """List a folder; note what is neither among the *folders* (None: any) nor one of the *files* of the layout."""
        found = _Folder([], [])
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self._note(folder, error.strerror or "an unreadable folder", "a folder")
            return found
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                if folders is None or entry.name in folders:
                    found.folders.append(entry.name)
                else:
                    self._note(path, "a folder", "nothing")
            elif not entry.is_file(follow_symlinks=False):
                kind = "a symbolic link" if entry.is_symlink() else "neither a file nor a folder"
                self._note(path, kind, "a file, a folder or nothing")
            elif files(entry.name):
                found.files.append(entry.name)
            else:
                self._note(path, "a file", "nothing")
        return found

    def _pngs(self, folder: Path, *, is_mask: bool = False) -> list[str]:
        """List a folder of images, each of which is to be opened."""
        found = self._list(folder, folders=set(), files=lambda name: name.endswith(".png")).files
        self.checks += [_Check(folder / name, is_mask) for name in found]
        return found

    def _pair(self, test: dict[str, list[str]], masks: dict[str, list[str]]) -> None:
        """Note defective images without a mask, and masks without an image."""
        wanted = {(defect, f"{Path(name).stem}_mask.png") for defect in test if defect != GOOD for name in test[defect]}
        there = {(defect, name) for defect in masks for name in masks[defect]}
        for defect, name in sorted(wanted - there):
            self._note(self._home / "ground_truth" / defect / name, "no file", "the mask of a defective image")
        for defect, name in sorted(there - wanted):
            self._note(self._home / "ground_truth" / defect / name, "a mask", "nothing, as it has no image")

    def _compare(self, counts: Counts) -> None:
        expected = published(self._facts)
        places = ("train/good", "test/good", "test/<defect>", "test", "ground_truth")
        kinds = ("images", "images", "defective images", "kinds of defect", "masks")
        for place, kind, got, number in zip(places, kinds, counts, expected, strict=True):
            if got != number:
                self._note(self._home / place, f"{got} {kind}", str(number))

    def _gaps(self, place: str, names: list[str], expected: int | None) -> None:
        """Note the numbers that are missing: images are numbered from 000 without a gap."""
        numbers = {int(stem) for name in names if (stem := Path(name).stem).isascii() and stem.isdigit()}
        last = expected if expected is not None else max(numbers, default=-1) + 1
        missing = sorted(set(range(last)) - numbers) if last <= LARGEST_NUMBER else []
        if missing:
            shown = ", ".join(f"{number:03d}.png" for number in missing[:SHOWN_NAMES])
            more = f" and {len(missing) - SHOWN_NAMES} more" if len(missing) > SHOWN_NAMES else ""
            self._note(self._home / place, f"no {shown}{more}", "numbers without a gap")


def _printable(text: str) -> str:
    """Write a name so that a terminal shows it as it is: what cannot be printed is escaped."""
    return text if text.isprintable() else ascii(text)[1:-1]


def published(facts: CategoryFacts) -> Counts:
    """Return the counts that are published; every defective image has a mask."""
    return Counts(
        facts.train_good, facts.test_good, facts.test_defective, facts.defect_types, masks=facts.test_defective
    )


def _examine(check: _Check, facts: CategoryFacts) -> tuple[str, str] | None:
    """Open a file; return what was got and expected where they differ."""
    try:
        differs = _header_differs(check, facts)
        if differs:
            return differs
        if check.is_mask:
            inspect_mask(check.path, facts.stored_side)
        else:
            inspect_image(check.path)
            read_image(check.path, facts.stored_side)
    except DataError as error:
        return error.got, error.expected
    return None


def _header_differs(check: _Check, facts: CategoryFacts) -> tuple[str, str] | None:
    """Compare pixels and channels as the file's first bytes tell them."""
    width, height, channels, depth = read_header(check.path)
    side, published_channels = facts.stored_side, 1 if check.is_mask else facts.channels
    got = f"{width} x {height} pixels, {channels} channels of {depth} bits"
    expected = f"{side} x {side} pixels, {published_channels} channels of 8 bits"
    return None if got == expected else (got, expected)


def verify(root: Path, categories: list[str], reporter: Reporter) -> list[CategoryReport]:
    """Compare *categories* under *root* (none: all 15) with what is published.

    Raises:
        ConfigError: a category is not one of MVTec AD's.
        DataError: the root is no folder, or holds none of them.

    """
    facts = _wished(root, categories)
    looks = [(each, _Inspection(root, each)) for each in facts]
    total = sum(len(look.checks) for _, look in looks)
    reporter.begin("reading", total, "files")
    try:
        with ThreadPoolExecutor(WORKERS) as workers:  # decoding lets go of the interpreter
            return [_report(each, look, root, workers, reporter) for each, look in looks]
    finally:
        reporter.end()


def _wished(root: Path, categories: list[str]) -> list[CategoryFacts]:
    known = mvtec_ad()
    for name in categories:
        if name not in known:
            expected = f"one of {', '.join(known)}"
            raise ConfigError("--category", got=repr(name), expected=expected, fix="choose one of these")
    try:
        there = os.listdir(root)  # noqa: PTH208 - names are wanted
    except OSError as error:
        got = error.strerror or "an unreadable folder"
        raise DataError(root, got=got, expected="the folder of MVTec AD", fix="check the path") from error
    if not known.keys() & set(there):
        fix = "name the folder that holds them, or bench data download"
        raise DataError(root, got="no category of MVTec AD", expected="bottle, cable, …", fix=fix)
    return [facts for name, facts in known.items() if name in categories or not categories]


def _report(
    facts: CategoryFacts, look: _Inspection, root: Path, workers: ThreadPoolExecutor, reporter: Reporter
) -> CategoryReport:
    """Open the files of a category and report on it."""
    off = list(_differences(facts, look.checks, root, workers, reporter))
    return CategoryReport(facts.category, look.counts, published(facts), tuple(sorted(look.findings + off)))


def _differences(
    facts: CategoryFacts, checks: list[_Check], root: Path, workers: ThreadPoolExecutor, reporter: Reporter
) -> Iterator[Finding]:
    for check, off in zip(checks, workers.map(lambda check: _examine(check, facts), checks), strict=True):
        reporter.advance(1)
        if off:
            yield Finding(_printable(str(check.path.relative_to(root))), *off)
