"""Prompt sets: read from what people paste or upload, checked line by line, and kept as immutable versions."""

import csv
import hashlib
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from django.db import connection, transaction
from django.utils.text import slugify

from accounts.models import User
from generation.models import Prompt, PromptSet

MAX_PROMPTS = 10_000
MAX_TEXT = 1000
MAX_BUCKET = 60
MAX_BYTES = 4 * 1024 * 1024
COLUMNS = ("prompt", "bucket", "caption")
# More than a handful of complaints at once help nobody.
SHOWN_PROBLEMS = 10


class PromptsRefused(ValueError):
    """Prompts that cannot become a set; `problems` are sentences for a person, the first ten of them."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems[0])
        self.problems = list(problems[:SHOWN_PROBLEMS])
        if len(problems) > SHOWN_PROBLEMS:
            self.problems.append(f"And {len(problems) - SHOWN_PROBLEMS} more lines have a problem.")


@dataclass(frozen=True)
class PromptLine:
    """A prompt as it was read: its text, its bucket and caption (may be empty) and the line it stands on, from 1."""

    text: str
    bucket: str
    line: int
    caption: str = ""


@dataclass(frozen=True)
class Difference:
    """What a version changed: prompts added and removed, (prompt, old bucket, new bucket) of those moved, and
    (prompt, old caption, new caption) of those taught under other words."""

    added: list[Prompt]
    removed: list[Prompt]
    moved: list[tuple[Prompt, str, str]]
    recaptioned: list[tuple[Prompt, str, str]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.moved or self.recaptioned)


def decode_upload(content: bytes) -> str:
    """The text of an uploaded file, with or without a byte order mark. Raises PromptsRefused."""
    if len(content) > MAX_BYTES:
        raise PromptsRefused([f"The file is larger than {MAX_BYTES // 1024 // 1024} MB."])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PromptsRefused(
            ["The file is not UTF-8 text. Save it again as “CSV UTF-8” or as plain text in UTF-8."]
        ) from None


def check_table(text: str) -> None:
    """Raises PromptsRefused for the text of a table that names no prompt column: its header would become a prompt."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if _csv_header(text) is None and any(mark in first for mark in ',;\t"'):
        raise PromptsRefused(
            [
                "The first line of a CSV file names its columns, and one of them must be “prompt”. Correct the first line, "
                "or save the file as .txt with one prompt a line."
            ]
        )


def read_prompts(text: str) -> list[PromptLine]:
    """The prompts of pasted text, in order.

    Either a CSV whose first line names the columns `prompt` and, if wanted, `bucket` and `caption` (separated by comma,
    semicolon or tab); or a prompt a line, where a line `# name` begins a bucket. Empty lines are passed over.
    Raises PromptsRefused with a sentence for each line that cannot stand.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    header = _csv_header(text)
    lines = [row for row in (_read_csv(text, *header) if header else _read_plain(text)) if row.text or row.caption]
    if not lines:
        raise PromptsRefused(["There is no prompt in it."])
    if len(lines) > MAX_PROMPTS:
        raise PromptsRefused([f"There are {len(lines):,} prompts; a set holds at most {MAX_PROMPTS:,}."])
    if problems := [problem for line in lines for problem in _problems(line)]:
        raise PromptsRefused(problems)
    return lines


def find_repeats(lines: Iterable[PromptLine]) -> list[tuple[PromptLine, PromptLine]]:
    """(first, repeat) for every prompt whose text stood before."""
    seen: dict[str, PromptLine] = {}
    repeats = []
    for line in lines:
        if line.text in seen:
            repeats.append((seen[line.text], line))
        else:
            seen[line.text] = line
    return repeats


def hash_prompts(prompts: Iterable[tuple[str, str] | tuple[str, str, str]]) -> str:
    """SHA-256 of the canonical list of (text, bucket) or (text, bucket, caption): its JSON in UTF-8 without spaces, in
    order. An empty caption is left out, so that sets without captions keep the hashes that they have always had."""
    rows = [[text, bucket, *filter(None, caption)] for text, bucket, *caption in prompts]
    canonical = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def create_prompt_set(
    *,
    name: str,
    text: str,
    by: User,
    note: str = "",
    parent: PromptSet | None = None,
    leave_out_repeats: bool = False,
) -> PromptSet:
    """Keep prompts as the first version of a new set, or as the version after `parent`'s newest.

    `text` is read by `read_prompts`. Raises PromptsRefused for prompts that cannot stand or repeat each other, for a
    name that another set has, and for a version that changes nothing.
    """
    lines = read_prompts(text)
    if repeats := find_repeats(lines):
        if not leave_out_repeats:
            raise PromptsRefused(
                [f"Line {again.line} repeats line {first.line}: {again.text}" for first, again in repeats]
            )
        left_out = {again.line for _, again in repeats}
        lines = [line for line in lines if line.line not in left_out]
    content_hash = hash_prompts((line.text, line.bucket, line.caption) for line in lines)
    slug = parent.slug if parent else _slug(name)
    with transaction.atomic():
        newest = _lock_newest(slug)
        if newest and not parent:
            raise PromptsRefused(
                [f"There is a set “{newest.name}” already. Make a new version of it, or take another name."]
            )
        if newest and newest.content_hash == content_hash:
            raise PromptsRefused([f"These are exactly the prompts of {newest}."])
        created = PromptSet.objects.create(
            slug=slug,
            version=newest.version + 1 if newest else 1,
            name=newest.name if newest else name,
            note=note,
            parent=parent,
            content_hash=content_hash,
            prompt_count=len(lines),
            created_by=by,
        )
        Prompt.objects.bulk_create(
            [
                Prompt(prompt_set=created, position=position, text=line.text, bucket=line.bucket, caption=line.caption)
                for position, line in enumerate(lines)
            ],
            batch_size=1000,
        )
    return created


def write_text(prompt_set: PromptSet) -> str:
    """The set as text that `read_prompts` reads back to the same list: CSV where there are buckets or captions, else a
    line each."""
    rows = list(prompt_set.prompts.values_list("text", "bucket", "caption"))
    if not any(bucket or caption or text.startswith("#") for text, bucket, caption in rows):
        return "\n".join(text for text, _, _ in rows)
    columns = 3 if any(caption for _, _, caption in rows) else 2
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS[:columns])
    writer.writerows(row[:columns] for row in rows)
    return out.getvalue()


def compare_versions(old: PromptSet, new: PromptSet) -> Difference:
    """What `new` changed since `old`, in the order of the sets."""
    before = {prompt.text: prompt for prompt in old.prompts.all()}
    after = {prompt.text: prompt for prompt in new.prompts.all()}
    kept = [(before[text], prompt) for text, prompt in after.items() if text in before]
    return Difference(
        added=[prompt for text, prompt in after.items() if text not in before],
        removed=[prompt for text, prompt in before.items() if text not in after],
        moved=[(prompt, was.bucket, prompt.bucket) for was, prompt in kept if was.bucket != prompt.bucket],
        recaptioned=[
            (prompt, was.taught_as, prompt.taught_as) for was, prompt in kept if was.caption != prompt.caption
        ],
    )


def count_buckets(prompt_set: PromptSet) -> list[tuple[str, int]]:
    """(bucket, prompts in it), the largest first; prompts without a bucket count under the empty name."""
    counts = Counter(prompt_set.prompts.values_list("bucket", flat=True))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _csv_header(text: str) -> tuple[str, list[str]] | None:
    """(delimiter, column names) if the first line that says something is a CSV header with a prompt column."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    for delimiter in ",;\t":
        columns = [column.strip().strip('"').lower() for column in first.split(delimiter)]
        if "prompt" in columns:
            return delimiter, columns
    return None


def _read_csv(text: str, delimiter: str, columns: list[str]) -> Iterator[PromptLine]:
    if repeated := [name for name, times in Counter(columns).items() if times > 1 and name in COLUMNS]:
        raise PromptsRefused([f"The first line names the column “{repeated[0]}” more than once."])
    places = {name: columns.index(name) for name in COLUMNS if name in columns}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header_seen, line = False, 1
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise PromptsRefused(
                [f"Line {line} is no proper CSV: look for a quotation mark that is not closed."]
            ) from None
        if not any(cell.strip() for cell in row):
            continue
        if not header_seen:
            header_seen = True
            continue
        cells = {name: row[place].strip() for name, place in places.items() if place < len(row)}
        prompt, caption = cells.get("prompt", ""), cells.get("caption", "")
        yield PromptLine(prompt, cells.get("bucket", ""), line, caption if caption != prompt else "")


def _read_plain(text: str) -> Iterator[PromptLine]:
    bucket = ""
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped.startswith("#"):
            bucket = stripped.lstrip("#").strip()
        elif stripped:
            yield PromptLine(stripped, bucket, number)


def _problems(line: PromptLine) -> Iterator[str]:
    if not line.text:
        yield f"Line {line.line} has a caption but no prompt."
    if len(line.text) > MAX_TEXT:
        yield f"Line {line.line} has {len(line.text):,} characters; a prompt has at most {MAX_TEXT:,}."
    if len(line.bucket) > MAX_BUCKET:
        yield f"Line {line.line}: the name of the bucket has more than {MAX_BUCKET} characters."
    if len(line.caption) > MAX_TEXT:
        yield f"Line {line.line} has a caption of {len(line.caption):,} characters; it has at most {MAX_TEXT:,}."
    for name, words in (("prompt", line.text + line.bucket), ("caption", line.caption)):
        # Control characters, lone surrogates, and the separators that other programs take for the end of a line.
        if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in words):
            yield f"Line {line.line} has a control character or a line break inside a {name}."


def _slug(name: str) -> str:
    # A name without a Latin letter still needs an address.
    return slugify(name)[:80].strip("-") or f"prompts-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _lock_newest(slug: str) -> PromptSet | None:
    """The newest version of a slug, with the slug held until the end of the transaction, also where there is none yet."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"generation.prompt_set:{slug}"])
    return PromptSet.objects.filter(slug=slug).order_by("-version").first()
