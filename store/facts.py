"""The nouns: frozen values that travel every arrow of the house.

Knows what a fact, an update, an edit, a reading and an outcome are. Doesn't know files, SQLite,
torch or the clock: every time in here was handed in.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum

from store.names import fold


class Op(StrEnum):
    UPSERT = "upsert"
    RETRACT = "retract"


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class RowClass(StrEnum):
    """What a row of a fact file means for the ledger (`store.diffing`)."""

    UNCHANGED = "unchanged"
    NEW = "new"
    CHANGED = "changed"
    RETRACTED = "retracted"
    STALE = "stale"
    CONFLICTING = "conflicting"
    INVALID = "invalid"


class EditState(StrEnum):
    PENDING = "pending"
    EDITING = "editing"
    JUDGED = "judged"
    LIVE = "live"
    ALREADY_KNOWN = "already_known"
    ROLLED_BACK = "rolled_back"
    HELD = "held"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class AnswerKind(StrEnum):
    """What one free greedy answer says about a fact; each answer is exactly one of these."""

    NEW = "new"
    OLD = "old"
    BOTH = "both"
    UNSURE = "unsure"
    OTHER = "other"


class Verdict(IntEnum):
    """Ordered: the worst of several is their maximum."""

    PASS = 0
    INCONCLUSIVE = 1
    ERROR = 2
    FAIL = 3


class Suite(StrEnum):
    """What is measured of a candidate generation. Every value is a share in [0, 1], except
    `KL_DRIFT` (mean nats per token against the base) and `PERPLEXITY` (ratio to the base)."""

    EFFICACY = "efficacy"
    PARAPHRASE = "paraphrase"
    OLD_GONE = "old_gone"
    NEIGHBOURS = "neighbours"
    SAME_SUBJECT = "same_subject"
    UNRELATED = "unrelated"
    OVER_REFUSAL_UNLEARN = "over_refusal_unlearn"
    OVER_REFUSAL = "over_refusal"
    KL_DRIFT = "kl_drift"
    PERPLEXITY = "perplexity"
    LIVE_FACTS = "live_facts"


class Latent(StrEnum):
    """What is measured of an old answer that an edit drove out of free answers. Ranks are geometric
    means (1: the greedy choice), probabilities means; the others are shares in [0, 1] of answers
    that give the old object. `policies.latent` says what is asked."""

    OLD_RANK = "old_rank"
    OLD_PROBABILITY = "old_probability"
    NEW_RANK = "new_rank"
    NEW_PROBABILITY = "new_probability"
    PRESSURE = "pressure"
    CHOICE = "choice"
    PREFIX = "prefix"
    START = "start"
    HISTORY = "history"
    NEGATION = "negation"


@dataclass(frozen=True, slots=True, order=True)
class FactKey:
    """What a fact is about; the ledger holds one wanted value for each key."""

    subject: str
    relation: str

    def folded(self) -> "FactKey":
        """How keys compare; folding again changes nothing."""
        return FactKey(fold(self.subject), fold(self.relation))

    def __str__(self) -> str:
        return f"{self.subject} / {self.relation}"


@dataclass(frozen=True, slots=True)
class FactUpdate:
    """One record of a fact file, checked and normalised. `line` counts from 1."""

    key: FactKey
    object: str | None
    op: Op = Op.UPSERT
    aliases: tuple[str, ...] = ()
    old: str | None = None
    old_aliases: tuple[str, ...] = ()
    effective_at: datetime | None = None
    version: int | None = None
    source: str = ""
    priority: Priority = Priority.NORMAL
    note: str = ""
    prompts: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    line: int = 1


@dataclass(frozen=True, slots=True)
class FactRow:
    """The ledger's view of one key: what the served model was made to say and what it should say.

    `value` is what the live generation answers as far as the ledger knows (None: never edited, or
    retracted); `wanted` the newest accepted value (None with `wanted_op` retract).
    """

    key: FactKey
    value: str | None
    wanted: str | None
    wanted_op: Op
    aliases: tuple[str, ...] = ()
    version: int | None = None
    effective_at: datetime | None = None
    source: str = ""
    live_edit: int | None = None


@dataclass(frozen=True, slots=True)
class DiffRow:
    """A row and what it means. `reason` is a sentence for the operator."""

    update: FactUpdate
    row_class: RowClass
    reason: str
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """One job of the ledger's queue. `prompts` and `paraphrases` hold `{subject}` or a full text;
    one that ends in `?` or `.` is put through the chat template, the others are cloze. `repeats` is the
    edit whose content the ledger queued again by itself; None for what a file asked for. `batch` is the same
    number for edits that a refused batch left to be tried together, by themselves (`policies.batches`)."""

    id: int
    key: FactKey
    op: Op
    new: str | None
    aliases: tuple[str, ...]
    old: str | None
    old_aliases: tuple[str, ...]
    state: EditState
    priority: Priority = Priority.NORMAL
    prompts: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    source: str = ""
    version: int | None = None
    effective_at: datetime | None = None
    dropped_at: datetime | None = None
    attempt: int = 0
    recipe: str = "default"
    generation: int | None = None
    reason: str = ""
    delta_blob: str | None = None
    repeats: int | None = None
    batch: int | None = None


@dataclass(frozen=True, slots=True)
class Phrasing:
    """A question (chat template) or a cloze (plain text to be continued), subject filled in."""

    text: str
    is_question: bool


@dataclass(frozen=True, slots=True)
class EditRequest:
    """Everything the editor may know about one fact.

    `train` phrasings are trained on; `held_out` are only ever measured. `neighbours` are other
    subjects of the relation; `templates` the relation's training phrasings with `{subject}`, from
    which neighbour prompts are made.
    """

    key: FactKey
    op: Op
    new: str | None
    new_aliases: tuple[str, ...]
    old: str | None
    old_aliases: tuple[str, ...]
    train: tuple[Phrasing, ...]
    held_out: tuple[Phrasing, ...]
    templates: tuple[Phrasing, ...]
    held_out_templates: tuple[Phrasing, ...]
    neighbours: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """One measured answer: what was asked, what was expected, what came."""

    prompt: str
    expected: str
    answer: str
    ok: bool
    kind: AnswerKind = AnswerKind.OTHER


@dataclass(frozen=True, slots=True)
class Reading:
    """One suite measured once: `value` with its 95 % interval [low, high] over `n` answers."""

    suite: Suite
    value: float
    low: float
    high: float
    n: int
    answers: tuple[ProbeAnswer, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class LatentAnswer:
    """One prompt put to the model before and after an edit, and what each answer says."""

    prompt: str
    before: str
    after: str
    kind_before: AnswerKind = AnswerKind.OTHER
    kind_after: AnswerKind = AnswerKind.OTHER


@dataclass(frozen=True, slots=True)
class LatentReading:
    """One measure of soft forgetting on `n` prompts: of the generation before the edit and of the
    candidate. It informs and gates nothing."""

    measure: Latent
    before: float
    after: float
    n: int
    answers: tuple[LatentAnswer, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class SuiteVerdict:
    suite: Suite
    verdict: Verdict
    reason: str
    reading: Reading | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The worst of the suites' verdicts, and why."""

    verdict: Verdict
    reason: str
    suites: tuple[SuiteVerdict, ...]


@dataclass(frozen=True, slots=True)
class ModuleScore:
    """Localisation of one module: `attribution` (absolute, nats) and, where checked by causal
    patching, `effect` (nats of the answer's log-probability that patching moves)."""

    module: str
    attribution: float
    effect: float | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One state of the weights: the base plus the summed log-scale vectors of `edits`."""

    number: int
    parent: int | None
    state: str  # building | live | retired | rolled_back | quarantined
    weights_sha256: str
    theta_blob: str | None  # None: the base itself
    edits: tuple[int, ...]
    created_at: datetime
    reason: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one edit: the single value from which metrics, logs and audit are made."""

    edit: Edit
    state: EditState
    reason: str
    generation: int | None
    judgement: Judgement | None
    before: str
    after: str
    seconds: tuple[tuple[str, float], ...] = ()  # stage name -> seconds
    localisation: tuple[ModuleScore, ...] = ()
    freshness_seconds: float | None = None
    soft_forgetting: tuple[LatentReading, ...] = ()
