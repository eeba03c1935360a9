"""A bag's images classified offline: every frame, in order, as fast as the machine can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from repghost_ros.errors import need
from repghost_ros.model import Classifier
from repghost_ros.results import named, top_k
from repghost_ros.runs.batch import classify_each
from repghost_ros.sources.bags import Bag, Recorded
from repghost_ros.vision.frame import Frame


@dataclass(frozen=True)
class Answer:
    """One frame of the bag and what the model made of it."""

    topic: str
    time_ns: int
    """When the frame was recorded, nanoseconds."""
    stamp_ns: int
    """Of the frame's header, nanoseconds."""
    frame_id: str
    results: tuple[tuple[str, float], ...] = ()
    """(class_id, score), best first; empty after an error, or where none reached the threshold."""
    error: str = ""


def replay(
    bag: Bag,
    topic: str,
    classifier: Classifier,
    *,
    top: int = 5,
    score_threshold: float = 0.0,
    class_id: str = "label",
    roi: Sequence[int] = (0, 0, 0, 0),
    resize: str = "stretch",
    source_color_range: str = "limited",
    workers: int | None = None,
) -> Iterator[Answer]:
    """Answer every frame as the node would with the same parameters; none is dropped.

    Args:
        bag: the opened bag.
        topic: of its images.
        classifier: the opened model; both stay the caller's.
        top: how many classes to report.
        score_threshold: least probability of a reported class, 0.0 to 1.0.
        class_id: `label` or `index`.
        roi: region to classify, x, y, width, height in pixels; zeros: the whole frame.
        resize: one of RESIZE_POLICIES.
        source_color_range: of YUV frames.
        workers: frames in work at a time; by default one a core.

    Raises:
        SourceError: the bag is truncated or corrupt; what was answered before was yielded.

    """

    def frame(recorded: Recorded) -> Frame:
        whole = recorded.frame()
        return whole.crop(*roi) if any(roi) else whole

    results = classify_each(
        classifier,
        bag.messages(topic),
        frame,
        workers=workers,
        resize=resize,
        source_color_range=source_color_range,
    )
    for result in results:
        image = result.item
        about = (image.topic, image.time_ns, image.stamp_ns, image.frame_id)
        try:
            if result.error is not None:
                raise result.error
            assert result.logits is not None
            best = top_k(result.logits, top, score_threshold)
        except Exception as error:  # whatever stopped this frame stops no other
            yield Answer(*about, error=str(error) or type(error).__name__)
            continue
        yield Answer(*about, results=named(best, classifier.labels, class_id))


@dataclass
class Summary:
    """What a replay found, counted while it goes by."""

    frames: int = 0
    refused: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    """Frames by their best class."""
    best: list[tuple[int, str, float]] = field(default_factory=list)
    """Stamp in nanoseconds, best class and its score, of every frame that was answered."""

    def count(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Pass the answers on."""
        for answer in answers:
            self.frames += 1
            if answer.error:
                self.refused += 1
            elif answer.results:
                class_id, score = answer.results[0]
                self.classes[class_id] += 1
                self.best.append((answer.stamp_ns, class_id, score))
            yield answer

    def timeline(self) -> list[tuple[str, int, int, int]]:
        """Class, first and last stamp in nanoseconds, and frames, of every run of one class."""
        runs = []
        for class_id, group in groupby(self.best, key=lambda each: each[1]):
            stamps = [stamp for stamp, _, _ in group]
            runs.append((class_id, stamps[0], stamps[-1], len(stamps)))
        return runs

    def plot(self, path: Path) -> None:
        """Draw the best class over the seconds since the first frame, darker where it is surer.

        Raises:
            DependencyError: matplotlib is missing.

        """
        need("matplotlib", "pip install matplotlib").use("Agg")
        pyplot = need("matplotlib.pyplot", "pip install matplotlib")
        classes = list(self.classes)
        figure, axes = pyplot.subplots(figsize=(10, 1.5 + 0.3 * len(classes)), layout="constrained")
        start = min((stamp for stamp, _, _ in self.best), default=0)
        points = axes.scatter(
            [(stamp - start) / 1e9 for stamp, _, _ in self.best],
            [classes.index(class_id) for _, class_id, _ in self.best],
            c=[score for _, _, score in self.best],
            marker="|",
            s=120,
            vmin=0,
            vmax=1,
            cmap="viridis_r",
        )
        # A dollar would begin a formula.
        axes.set_yticks(range(len(classes)), [name.replace("$", r"\$") for name in classes])
        axes.invert_yaxis()
        axes.set(xlabel="seconds", title=f"best class of {len(self.best)} frames")
        figure.colorbar(points, label="score")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)
        pyplot.close(figure)
