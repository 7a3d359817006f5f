"""Check an algorithm against the contract of `metabench.api.Algorithm`.

`metabench.testing.AlgorithmChecks` runs these checks under pytest, `metabench plugin check` on the command line.
"""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from metabench.analysis.calibration import fit_temperature
from metabench.analysis.metrics import NegativeLogLikelihood, credit, log_probabilities
from metabench.api import Algorithm
from metabench.api.batching import Sequential
from metabench.conformance import checks
from metabench.conformance.checks import NotConforming
from metabench.conformance.subjects import CPU, NORMS, Subject, episodes, made_up_split, prepared, same, state_of, train
from metabench.data.sampler import EpisodeShape
from metabench.engine.asking import ask, predict
from metabench.engine.batching import Threaded, Vmapped
from metabench.engine.controls import SHUFFLED_EPISODES, check_shuffled_labels, is_transductive
from metabench.engine.evaluation import answers, checked, evaluate
from metabench.engine.streams import EpisodeStream
from metabench.engine.trial import purity_of
from metabench.errors import CellFailed, PluginError, Unfit, in_one_line
from metabench.machine.memory import BatchSize
from metabench.registry.configs import search_space

#: Accuracy of an algorithm that has learnt; chance is .2.
LEARNT = 0.35
#: Accuracy from which scores must tell right from wrong.
_SURE = 0.9
#: Largest share of the NLL of constant scores that such a method may have, at its temperature.
_LIKELY = 0.7
#: Outer updates between two tests of whether it has.
_STEPS_AT_ONCE = 20
#: Outer updates before the check of relabelling: the scores of fewer depend on the order of the labels by chance.
_RELABELLING_STEPS = 60
#: Number of episodes of varying ways and shots.
_VARYING = 3


def check_parameters(subject: Subject) -> None:
    """Unknown parameters are refused by its Config, and what is searched are parameters of it."""
    config = subject.plugins.algorithm_class(subject.name).Config
    checks.refuse_unknown_parameters(config)
    try:
        search_space(config)
    except PluginError as error:
        raise NotConforming(str(error)) from error


def check_seed(subject: Subject) -> None:
    """The same seed gives the same weights, bit for bit."""
    states = []
    for _ in range(2):
        algorithm = subject.build()
        train(algorithm, episodes("train"), 0, 3)
        states.append(state_of(algorithm))
    if not same(*states):
        raise NotConforming("two trainings from one seed differ: draw random numbers from torch's default generator")


def check_resume(subject: Subject) -> None:
    """Saving and loading changes neither further training nor predictions."""
    whole = subject.build()
    train(whole, episodes("train"), 0, 4)
    interrupted = subject.build()
    train(interrupted, episodes("train"), 0, 2)
    saved = state_of(interrupted)
    resumed = subject.build(seed=1)
    resumed.load_state_dict(saved["weights"])
    resumed.load_training_state(saved["training"])
    train(resumed, episodes("train"), 2, 2)
    if not same(state_of(whole), state_of(resumed)):
        raise NotConforming(
            "a training that was saved and loaded continues to different weights: save and restore state that is not "
            "in state_dict() by training_state() and load_training_state()"
        )
    loaded = subject.build(seed=1)
    loaded.load_state_dict(whole.state_dict())
    drawn = episodes("test").batch(0, 2)
    if not same(predict(whole, drawn, 0, 0), predict(loaded, drawn, 0, 0)):
        raise NotConforming(
            "weights that were saved and loaded answer otherwise: keep everything that adapt and answer need in "
            "state_dict(), see register_buffer() and get_extra_state()"
        )


def check_prediction_changes_nothing(subject: Subject) -> None:
    """`adapt` and `answer` leave parameters, buffers and training state unchanged."""
    algorithm = subject.build()
    train(algorithm, episodes("train"), 0, 2)
    before = state_of(algorithm)
    predict(algorithm, episodes("test").batch(0, 3), 0, 0)
    if not same(before, state_of(algorithm)):
        raise NotConforming("adapt or answer changed its parameters, buffers or training state: work on copies of them")


def check_prepare(subject: Subject) -> None:
    """`prepare` changes buffers only, and its results are saved and loaded with the weights."""
    algorithm = subject.build()
    train(algorithm, episodes("train"), 0, 2)
    before = copy.deepcopy(dict(algorithm.named_parameters()))
    once = state_of(prepared(algorithm))
    if not same(before, dict(algorithm.named_parameters())):
        raise NotConforming("prepare changed its parameters: keep what it computes in buffers")
    if not same(once, state_of(prepared(algorithm))):
        raise NotConforming("prepare gives other results when it is called again: begin anew each time")
    loaded = subject.build(seed=1)
    loaded.load_state_dict(algorithm.state_dict())
    drawn = episodes("test").batch(0, 2)
    if not same(predict(algorithm, drawn, 0, 0), predict(loaded, drawn, 0, 0)):
        raise NotConforming("what prepare computes is not saved with the weights: keep it in buffers")


def check_batches(subject: Subject) -> None:
    """An episode's scores do not depend on its batch, with any normalisation."""
    for norm in NORMS:
        algorithm = subject.build(norm=norm)
        train(algorithm, episodes("train"), 0, 2)
        stream = episodes("test")
        together = predict(algorithm, stream.batch(0, 4), 0, 0)
        alone = torch.cat([predict(algorithm, stream.batch(i, 1), 0, i) for i in range(4)])
        if not torch.allclose(together, alone, rtol=1e-4, atol=1e-5):
            raise NotConforming(
                f"scores move by up to {float((together - alone).abs().max()):.2g} with the batch that an episode is "
                f"in{_with(norm)}: keep no state between episodes"
            )


def check_asked_twice(subject: Subject) -> None:
    """A question gets the same answer before and after other questions, with any normalisation."""
    for norm in NORMS:
        algorithm = subject.build(norm=norm)
        train(algorithm, episodes("train"), 0, 2)
        drawn, others = episodes("test").batch(0, 3), episodes("test").batch(3, 3)
        questions = [drawn.query_x, others.query_x, drawn.query_x[:, :1], drawn.query_x]
        first, _, _, again = ask(algorithm, drawn, questions, 0, 0)
        if not torch.equal(first, again):
            raise NotConforming(
                f"the same state answers the same queries otherwise after other questions (scores move by up to "
                f"{float((first - again).abs().max()):.2g}){_with(norm)}: answer must not change the state or itself"
            )


def check_asked_in_halves(subject: Subject) -> None:
    """Queries asked in two halves get the answers of all at once, unless it is transductive or draws at random."""
    algorithm = subject.build()
    if not purity_of(algorithm, episodes("train").batch(0, 2)).testing:
        return  # each question begins with the same random numbers
    train(algorithm, episodes("train"), 0, 2)
    drawn = episodes("test").batch(0, 3)
    half = drawn.query_x.shape[1] // 2
    whole, *halves = ask(algorithm, drawn, [drawn.query_x, drawn.query_x[:, :half], drawn.query_x[:, half:]], 0, 0)
    in_halves = torch.cat(halves, dim=1)
    if not subject.transductive and not torch.allclose(whole, in_halves, rtol=1e-4, atol=1e-5):
        raise NotConforming(
            f"scores move by up to {float((whole - in_halves).abs().max()):.2g} when the queries are asked in two "
            "halves: answer each query on its own, or declare the algorithm transductive"
        )


def check_frozen(subject: Subject) -> None:
    """A frozen backbone stays as it is; an algorithm without weights of its own may refuse it."""
    try:
        algorithm = subject.build(norm="running", frozen=True)
        before = copy.deepcopy(algorithm.backbone.state_dict())
        train(algorithm, episodes("train"), 0, 2)
    except Unfit:
        return
    predict(algorithm, episodes("test").batch(0, 2), 0, 0)
    if not same(before, algorithm.backbone.state_dict()):
        raise NotConforming(
            "it changes a frozen backbone: train and adapt metabench.api.trained_weights, not all parameters"
        )


def check_labels(subject: Subject) -> None:
    """Shuffled support labels give the accuracy of chance, with any normalisation."""
    for norm in NORMS:
        algorithm = subject.build(norm=norm)
        train(algorithm, episodes("train", shot=3), 0, subject.steps // 3)
        evaluate(algorithm, episodes_of_test(), SHUFFLED_EPISODES, BatchSize(CPU), 0)
        try:
            check_shuffled_labels(algorithm, episodes_of_test(), 0, BatchSize(CPU))
        except CellFailed as error:
            raise NotConforming(f"{error}{_with(norm)}") from error


def _with(norm: str) -> str:
    return "" if norm == "none" else f" (on a network with norm: {norm})"


def check_batchings(subject: Subject) -> None:
    """A functional algorithm's scores do not depend on its batching."""
    tried = subject.build()
    if not tried.functional:
        return
    purity = purity_of(tried, episodes("train").batch(0, 2))
    scores_of = []
    for batching in (Sequential(), Sequential(), Threaded(2), Vmapped(CPU)):
        algorithm = subject.build()
        algorithm.batching = batching if purity.testing else algorithm.batching
        algorithm.training_batching = batching if purity.training else algorithm.training_batching
        try:
            train(algorithm, episodes("train"), 0, 1)
            scores_of.append(predict(algorithm, episodes("test").batch(0, 4), 0, 0))
        except RuntimeError as error:
            raise NotConforming(
                f"it sets `functional`, but does not work for several episodes at once ({in_one_line(error)}): "
                "use tensor operations only, or do not set `functional`"
            ) from error
    if not torch.equal(scores_of[0], scores_of[1]):
        return  # two equal trainings differ, which `check_seed` reports
    for scores in scores_of[2:]:
        if not torch.allclose(scores, scores_of[0], rtol=1e-3, atol=1e-4):
            raise NotConforming(
                f"it sets `functional`, but scores move by up to {float((scores - scores_of[0]).abs().max()):.2g} for "
                "several episodes at once: keep no state between episodes, or do not set `functional`"
            )


def check_shapes(subject: Subject) -> None:
    """Any way and shot works; another training way may fail.

    An algorithm may refuse a training way that differs from the test's, by `Unfit`.
    """
    for way, shot in ((2, 1), (3, 4), (7, 2)):
        algorithm = subject.build(way)
        train(algorithm, episodes("train", way, shot), 0, 1)
        scores = predict(algorithm, episodes("test", way, shot, 3).batch(0, 2), 0, 0)
        try:
            checked(scores)
        except CellFailed as error:
            raise NotConforming(f"{way}-way {shot}-shot: {error}") from error
    try:
        algorithm = subject.build(5, train_way=8)
    except Unfit:
        return
    train(algorithm, episodes("train", 8), 0, 1)
    predict(algorithm, episodes("test").batch(0, 1), 0, 0)


def check_uneven_shots(subject: Subject) -> None:
    """An algorithm of any way also serves classes with different numbers of support images."""
    algorithm = subject.build()
    if not algorithm.any_way:
        return
    shape = EpisodeShape(0, 0, 0, sampling="meta-dataset")
    varying = EpisodeStream(made_up_split(len("test")), shape, "test", 0, CPU)
    for number in range(_VARYING):
        episode = varying.batch(number, 1)
        shots = episode.support_y[0].bincount().tolist()
        try:
            checked(predict(algorithm, episode, 0, number))
        except CellFailed as error:
            raise NotConforming(f"{episode.way} ways of {min(shots)} to {max(shots)} shots: {error}") from error


def check_scores(subject: Subject) -> None:
    """Scores are log-probabilities up to a constant and a temperature, not probabilities."""
    algorithm = replace(subject, steps=min(_RELABELLING_STEPS, subject.steps)).build(norm="support")
    train(algorithm, episodes("train", shot=3), 0, min(_RELABELLING_STEPS, subject.steps))
    (fitted, fitted_labels), (scores, labels) = (
        answers(algorithm, episodes(name, shot=8), 0, 0, SHUFFLED_EPISODES) for name in ("val", "test")
    )
    if bool((scores >= 0).all()) and np.allclose(scores.sum(axis=-1), 1, atol=1e-3):
        raise NotConforming("the scores of each query are probabilities: return their logarithms")
    temperature, accuracy = fit_temperature(fitted, fitted_labels), float(credit(scores, labels).mean())
    if temperature is None or accuracy < _SURE:
        return
    nll = float(NegativeLogLikelihood().of_episode(log_probabilities(scores, temperature), labels).mean())
    if nll > _LIKELY * math.log(scores.shape[-1]):
        raise NotConforming(
            f"it is right in {accuracy:.0%} of the queries, but no temperature makes its scores probabilities (the "
            f"negative log-likelihood is {nll:.2f}, where constant scores have {math.log(scores.shape[-1]):.2f}): "
            "return log-probabilities up to a constant, on one scale for all queries"
        )


def check_queries(subject: Subject) -> None:
    """A query's scores do not depend on the other queries."""
    algorithm = subject.build()
    train(algorithm, episodes("train"), 0, 2)
    if is_transductive(algorithm, episodes("test"), 0, BatchSize(CPU)) and not subject.transductive:
        raise NotConforming(
            "a query's scores move when the other queries are exchanged: predict each query on its own, or declare the "
            "algorithm transductive"
        )


def train_until_learnt(subject: Subject) -> tuple[Algorithm, float]:
    """Train a new algorithm until it beats chance, at most `Subject.steps`.

    The network normalises by the support set: without, MAML's default step is too large for it.

    Returns:
        The algorithm, and its accuracy on unseen classes.
    """
    algorithm = subject.build(norm="support")
    accuracy = 0.0
    for first in range(0, subject.steps, _STEPS_AT_ONCE):
        train(algorithm, episodes("train", shot=3), first, min(_STEPS_AT_ONCE, subject.steps - first))
        accuracy = float(evaluate(prepared(algorithm), episodes_of_test(), 40, BatchSize(CPU), 0).mean())
        if accuracy >= LEARNT:
            break
    return algorithm, accuracy


def check_relabelling(subject: Subject) -> None:
    """Permuting the labels does not change the accuracy."""
    steps = min(_RELABELLING_STEPS, subject.steps)
    algorithm = replace(subject, steps=steps).build()
    train(algorithm, episodes("train"), 0, steps)
    accuracies = []
    for turn in range(2):
        correct = []
        for i in range(20):
            drawn = episodes_of_test().batch(i, 1)
            order = torch.arange(5).roll(turn)
            relabelled = replace(drawn, support_y=order[drawn.support_y])
            scores = predict(algorithm, relabelled, 0, i)
            correct.append((scores.argmax(-1) == order[drawn.query_y]).double().mean().item())
        accuracies.append(float(np.mean(correct)))
    if abs(accuracies[0] - accuracies[1]) > 0.15:
        raise NotConforming(
            f"accuracy is {accuracies[0]:.0%} with one order of the labels and {accuracies[1]:.0%} with another: use "
            "support_y, not the position or value of a label, to tell classes apart"
        )


def episodes_of_test() -> EpisodeStream:
    """Return 5-way 3-shot test episodes."""
    return episodes("test", shot=3)


def check_memory(subject: Subject) -> None:
    """Memory does not grow with steps and episodes."""
    algorithm = subject.build()
    train_stream, test_stream = episodes("train"), episodes("test")

    def tensors_after(first: int) -> int:
        train(algorithm, train_stream, first, 4)
        for i in range(4):
            predict(algorithm, test_stream.batch(first + i, 1), 0, i)
        gc.collect()
        # isinstance() would read __class__ of proxy objects, and some of them raise.
        return sum(issubclass(type(candidate), Tensor) for candidate in gc.get_objects())

    tensors_after(0)
    before, after = tensors_after(4), tensors_after(8)
    if after > before + 2:
        raise NotConforming(
            f"{after - before} tensors more are alive after 4 more steps and episodes: detach the tensors that you keep"
        )


def check_learning(subject: Subject) -> None:
    """It beats chance on unseen classes of an easy dataset."""
    _, accuracy = train_until_learnt(subject)
    if accuracy < LEARNT:
        raise NotConforming(
            f"its accuracy is {accuracy:.0%} after {subject.steps} steps, where chance is 20 %: correct the loss, or "
            "allow more steps"
        )


CHECKS: dict[str, Callable[[Subject], None]] = {
    "parameters": check_parameters,
    "seed": check_seed,
    "resume": check_resume,
    "prediction changes nothing": check_prediction_changes_nothing,
    "prepare": check_prepare,
    "batches": check_batches,
    "batchings": check_batchings,
    "asked twice": check_asked_twice,
    "asked in halves": check_asked_in_halves,
    "frozen": check_frozen,
    "labels": check_labels,
    "shapes": check_shapes,
    "uneven shots": check_uneven_shots,
    "scores": check_scores,
    "queries": check_queries,
    "relabelling": check_relabelling,
    "memory": check_memory,
    "learning": check_learning,
}
