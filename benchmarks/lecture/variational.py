"""The variational autoencoder: its bound, its likelihood, the two promises of its code, and what beta does to them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from benchmarks.lecture.course import Course, Trained
from benchmarks.lecture.measures import rank_correlation, squared_error
from benchmarks.lecture.page import Section
from benchmarks.musts import Must, Side
from training.autoencoders.variational import Variational, kl_divergence, reparameterise
from training.card import Row
from training.graph import to_levels

PUBLISHED = {"VAE, k = 1": 86.76, "IWAE, k = 50": 84.78}  # Burda et al. 2016, one stochastic layer
MUST_VAE, MUST_IWAE = 86.8, 84.8
NATS = "-log p(x) (nats)"
ACTIVE = 0.01  # variance of the mean over the data, above which a unit is active (Burda et al. 2016)
PAIRS = 5_000
TILES = 12  # a side of the latent map
CORNER = 2.0  # standard deviations that the map reaches to
LIKELIHOODS = "likelihoods.npz"  # log p(x) of test images, and the hash of weights, images and draws
STEPS = 8  # of a walk from one image to another
NETWORK = {"kind": "variational", "hidden_sizes": [200, 200], "latent_dim": 50, "binarise": True}


@dataclass(frozen=True)
class Plan:
    """How much is trained and measured."""

    epochs: int
    importance_samples: int
    """k of the importance-weighted objective."""

    importance_epochs: int
    hidden_sizes: tuple[int, ...]
    """Of a wider network: a stronger decoder."""

    wide_samples: int
    """Its k."""

    wide_epochs: int
    batch_size: int
    learning_rate: float
    muon_rate: float | None
    frames: int
    """Test images whose likelihood is estimated."""

    draws: int
    """Importance samples of the estimate."""

    betas: tuple[float, ...]
    beta_epochs: int
    """Also of the map of two dimensions."""


FULL = Plan(400, 50, 40, (500, 500), 5, 100, 500, 0.001, 0.02, 10_000, 5_000, (0.25, 1, 4, 10), 40)
QUICK = Plan(2, 5, 1, (100, 100), 2, 1, 100, 0.003, None, 200, 100, (1, 4), 1)


@dataclass(frozen=True)
class Seen:
    """Test images as the model learned such: black and white ones, drawn once, and their posteriors."""

    model: Variational
    frames: Tensor

    @cached_property
    def posterior(self) -> tuple[Tensor, Tensor]:
        """Return mu and log_var, [n, latent_dim] each."""
        with torch.no_grad():
            return self.model.posterior(self.frames)

    @property
    def kl(self) -> Tensor:
        """KL(q(z_j|x) || N(0, 1)) of each latent variable in the mean over the images, [latent_dim], in nats."""
        mu, log_var = self.posterior
        columns = zip(mu.T, log_var.T, strict=True)
        return torch.stack([kl_divergence(m[:, None], v[:, None]).mean() for m, v in columns])

    @property
    def active(self) -> Tensor:
        """Tell which latent variables say anything of the image, [latent_dim]."""
        return self.posterior[0].var(0) > ACTIVE

    @torch.no_grad()
    def elbo(self) -> float:
        """Return the evidence lower bound in the mean over the images, one draw each, in nats."""
        mu, log_var = self.posterior
        parts = zip(*(torch.split(whole, 500) for whole in (self.frames, mu, log_var)), strict=True)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            fits = [self.model.log_prob(frames, reparameterise(m, v)) for frames, m, v in parts]
        return float(torch.cat(fits).mean() - kl_divergence(mu, log_var).mean())

    @property
    def covariance(self) -> Tensor:
        """Return that of the aggregated posterior, the mean of q(z|x) over the images: Cov mu + diag E sigma^2."""
        mu, log_var = self.posterior
        return torch.cov(mu.T, correction=0) + torch.diag(log_var.exp().mean(0))


def variational(course: Course, section: Section) -> None:
    """Measure the bounds against the published ones, then the promises."""
    plan = QUICK if course.quick else FULL
    section.say(
        "The variational autoencoder (Kingma and Welling 2014) maximises the evidence lower bound "
        "E log p(x|z) - KL(q(z|x) || N(0, I)), z = μ + σ ε with ε ~ N(0, I); for q = N(μ, diag σ²) the divergence is "
        "½ Σ (μ² + σ² - 1 - log σ²). The importance-weighted autoencoder (Burda et al. 2016) maximises "
        "E log 1/k Σ p(x|z_i) p(z_i) / q(z_i|x), a tighter bound of log p(x) the larger k. The network is theirs, "
        "784-200-200-50 with tanh, Bernoulli likelihood; images are binarised anew at each look, with grey levels as "
        "probabilities; the test images are binarised once, seed 0. A wider network with the same 50 latent variables "
        "shows what a stronger decoder is worth. Wide weights are learned with Muon, which needs far fewer steps than "
        "Adam."
    )
    models = _likelihoods(course, section, plan)
    _promises(section, Seen(models["VAE, k = 1"].of_kind(Variational), binarised(course.digits.test)))
    _betas(course, section, plan)
    _map(course, section, plan)


def binarised(frames: Tensor, seed: int = 0) -> Tensor:
    """Draw black and white frames with grey as chance, the same every time."""
    return torch.bernoulli(frames, generator=torch.Generator().manual_seed(seed))


def train_vae(course: Course) -> Trained:
    """Return the one-layer VAE of the likelihoods."""
    plan = QUICK if course.quick else FULL
    return _train(course, "vae", {}, plan.epochs, plan)


def _train(course: Course, name: str, config: Mapping[str, Any], epochs: int, plan: Plan) -> Trained:
    steps = epochs * len(course.digits.split.train) // plan.batch_size
    return course.trained(
        name,
        course.digits,
        NETWORK | dict(config),
        steps,
        ship=True,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        muon_rate=plan.muon_rate,
        validate_every=min(1000, steps),
    )


def _likelihoods(course: Course, section: Section, plan: Plan) -> dict[str, Trained]:
    samples = plan.importance_samples
    weighted = f"IWAE, k = {samples}"
    wide = f"784-{'-'.join(map(str, plan.hidden_sizes))}-50, k = {plan.wide_samples}"
    stronger = {"hidden_sizes": list(plan.hidden_sizes), "importance_samples": plan.wide_samples}
    models = {
        "VAE, k = 1": train_vae(course),
        weighted: _train(course, "iwae", {"importance_samples": samples}, plan.importance_epochs, plan),
        wide: _train(course, "wide-iwae", stronger, plan.wide_epochs, plan),
    }
    epochs = dict(zip(models, (plan.epochs, plan.importance_epochs, plan.wide_epochs), strict=True))
    frames = binarised(course.digits.test)[: plan.frames]
    rows: list[Row] = []
    found = {}
    for name, trained in models.items():
        seen = Seen(trained.of_kind(Variational), frames)
        log_p = kept_log_likelihoods(trained, frames, plan.draws)
        found[name] = -float(log_p.mean())
        rows.append({
            "": name,
            NATS: found[name],
            "standard error": float(log_p.std()) / math.sqrt(len(log_p)),
            "-ELBO": -seen.elbo(),
            "KL": float(seen.kl.sum()),
            "active units": float(seen.active.sum()),
            "epochs": float(epochs[name]),
            "CPU minutes of training": trained.minutes,
            "published": PUBLISHED.get(name, ""),
        })  # fmt: skip
    title = f"{len(frames):,} MNIST test images, -log p(x) by {plan.draws:,} importance samples"
    section.table(title, rows)
    section.say("The published ones were trained for 3,280 epochs. A unit is active where its mean varies by more than "
                f"{ACTIVE:g} over the images.")  # fmt: skip
    section.must([
        Must(f"one-layer VAE, {NATS}", Side.AT_MOST, MUST_VAE, {"VAE, k = 1": found["VAE, k = 1"]}),
        Must(f"importance-weighted, or a stronger decoder, {NATS}", Side.AT_MOST, MUST_IWAE,
             {name: found[name] for name in (weighted, wide)}),
    ])  # fmt: skip
    return models


def kept_log_likelihoods(trained: Trained, frames: Tensor, draws: int) -> Tensor:
    """Return log p(x) of frames as below, kept in the model's folder: it takes some 15 minutes a model."""
    model, kept = trained.of_kind(Variational), trained.run / LIKELIHOODS
    digest = blake2b(f"{draws} draws".encode(), digest_size=16)
    for tensor in (frames, *model.state_dict().values()):
        digest.update(tensor.contiguous().numpy().tobytes())
    if kept.is_file():
        with np.load(kept) as archive:
            if archive["of"] == digest.hexdigest():
                return torch.from_numpy(archive["log_p"])
    log_p = log_likelihoods(model, frames, draws)
    draft = kept.with_name(f"draft-{kept.name}")
    draft.parent.mkdir(parents=True, exist_ok=True)
    np.savez(draft, allow_pickle=False, log_p=log_p.numpy(), of=np.array(digest.hexdigest()))
    draft.replace(kept)
    return log_p


def log_likelihoods(model: Variational, frames: Tensor, draws: int) -> Tensor:
    """Return log p(x) of frames [n, C, H, W] as [n], in nats, with the same random draws every time."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        batches = tqdm(torch.split(frames, 100), "importance samples", unit="batch", disable=None)
        return torch.cat([model.log_likelihood(batch, draws) for batch in batches])


def _promises(section: Section, seen: Seen) -> None:
    section.say(
        "**First promise: latent variables are independent.** Over the data the code is distributed as the aggregated "
        "posterior, the mean of q(z|x); if it were the prior, its covariance Cov μ + diag E σ² would be the identity. "
        "Correlation and distance are those of the active variables: an unused one has the posterior N(0, 1) whatever "
        "the image, and is uncorrelated with all others because it says nothing. Uncorrelated is not yet independent: "
        "a covariance does not see what ties variables together in a curve."
    )
    section.table("Aggregated posterior of the VAE", [{
        "latent variables": float(len(seen.kl)), "active": float(seen.active.sum()),
        "mean variance": float(seen.covariance.diagonal().mean()),
        **dependence_of(seen),
    }])  # fmt: skip
    section.plot("covariance", "Covariance of the aggregated posterior; and the KL divergence of each latent variable, "
                 "in nats", _covariance(seen))  # fmt: skip
    section.say("**Second promise: similar codes give similar images.** Two codes are drawn from N(0, I) and decoded; "
                "and two test images are encoded.")  # fmt: skip
    codes, images = distances(seen)
    section.table("Spearman's correlation of the distance of two codes and the distance of their images", [
        {"codes drawn and decoded": rank_correlation(*codes), "test images encoded": rank_correlation(*images)}
    ])  # fmt: skip
    section.plot("distances", "Distance against distance", _scatter(codes, images))
    with torch.no_grad():
        section.pictures("walks", "Walks from the code of one test image to that of another", [
            list(to_levels(seen.model.decode(walk(seen.posterior[0][i], seen.posterior[0][i + 1]))).numpy())
            for i in (0, 2, 4, 6)
        ])  # fmt: skip


def dependence_of(seen: Seen) -> dict[str, str | float]:
    """Return how far the active latent variables are from independent ones, as cells of a table."""
    names, active = ("mean abs. correlation of two", "\\|Cov - I\\|_F / √d"), seen.active
    if active.sum() < 2:
        return dict.fromkeys(names, "n/a")
    return dict(zip(names, dependence(seen.covariance[active][:, active]), strict=True))


def dependence(covariance: Tensor) -> tuple[float, float]:
    """Return the mean absolute correlation of two variables, and |Cov - I|_F over the root of their number."""
    size = len(covariance)
    scale = covariance.diagonal().sqrt()
    correlation = covariance / torch.outer(scale, scale)
    off = correlation[~torch.eye(size, dtype=torch.bool)].abs()
    return float(off.mean()), float((covariance - torch.eye(size)).norm()) / math.sqrt(size)


Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@torch.no_grad()
def distances(seen: Seen) -> tuple[Pair, Pair]:
    """Return distances of pairs of codes and of their images: of codes from the prior, and of test images."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, PAIRS, seen.model.latent_dim, generator=generator)
    decoded = [seen.model.decode(codes) for codes in drawn]
    first, second = torch.randint(len(seen.frames), (2, PAIRS), generator=generator)
    first, second = first[first != second], second[first != second]  # an image is no pair with itself
    mu = seen.posterior[0]
    return (
        (_apart(drawn[0], drawn[1]), _apart(decoded[0], decoded[1])),
        (_apart(mu[first], mu[second]), _apart(seen.frames[first], seen.frames[second])),
    )


def _apart(one: Tensor, other: Tensor) -> npt.NDArray[np.float32]:
    return np.asarray((one - other).flatten(1).norm(dim=1).numpy(), np.float32)


def walk(start: Tensor, end: Tensor) -> Tensor:
    """Return codes [STEPS, latent_dim] on the straight line between two, ends included."""
    return torch.lerp(start, end, torch.linspace(0, 1, STEPS)[:, None])


def _betas(course: Course, section: Section, plan: Plan) -> None:
    section.say(
        "**What β does.** The β-VAE (Higgins et al. 2017) weighs the KL divergence by β: a larger one buys a code "
        "nearer to the prior, and pays in reconstruction."
    )
    frames = binarised(course.digits.test)
    rows: list[Row] = []
    for beta in plan.betas:
        trained = _train(course, f"beta-{beta:g}", {"beta": beta}, plan.beta_epochs, plan)
        seen = Seen(trained.of_kind(Variational), frames)
        codes, images = distances(seen)
        with torch.no_grad():
            error = squared_error(frames, seen.model.decode(seen.posterior[0]))
        rows.append({
            "β": f"{beta:g}", "KL (nats)": float(seen.kl.sum()), "active units": float(seen.active.sum()),
            "squared error": error, **dependence_of(seen),
            "distances, drawn": rank_correlation(*codes), "distances, encoded": rank_correlation(*images),
        })  # fmt: skip
    section.table(f"MNIST, {plan.beta_epochs} epochs each", rows)


def _map(course: Course, section: Section, plan: Plan) -> None:
    """Decode a grid of codes of a model with two latent variables."""
    model = _train(course, "map", {"latent_dim": 2}, plan.beta_epochs, plan).of_kind(Variational)
    line = torch.linspace(-CORNER, CORNER, TILES)
    with torch.no_grad():
        tiles = to_levels(model.decode(torch.cartesian_prod(line.flip(0), line).flip(1))).numpy()
        mu = model.posterior(binarised(course.digits.test))[0].numpy()
    caption = (
        f"A code of two numbers, {plan.beta_epochs} epochs: what is decoded from -{CORNER:g} to {CORNER:g} in each"
    )
    section.pictures("map", caption, [list(tiles[start : start + TILES]) for start in range(0, TILES**2, TILES)])
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    points = axes.scatter(mu[:, 0], mu[:, 1], c=course.labels[1], cmap="tab10", vmin=-0.5, vmax=9.5, s=2)
    figure.colorbar(points, label="digit", ticks=range(10))
    axes.set(xlabel="z₁", ylabel="z₂", aspect="equal")
    section.plot("codes", "Where the same model puts the test images; it was never told which digit is which", figure)


def _covariance(seen: Seen) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    order = seen.kl.argsort(descending=True)
    shown = left.imshow(seen.covariance[order][:, order].numpy(), cmap="coolwarm", vmin=-1.2, vmax=1.2)
    figure.colorbar(shown, ax=left)
    left.set(title="covariance, by KL", xlabel="latent variable", ylabel="latent variable")
    right.bar(range(len(order)), seen.kl[order].numpy())
    right.set(title="KL divergence", xlabel="latent variable", ylabel="nats")
    return figure


def _scatter(codes: Pair, images: Pair) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, (near, far), title in zip(
        figure.subplots(1, 2), (codes, images), ("codes drawn and decoded", "test images encoded"), strict=True
    ):
        axes.scatter(near, far, s=1, alpha=0.3)
        axes.set(title=title, xlabel="distance of the codes", ylabel="distance of the images")
    return figure
