"""Sequences whose values are made when they are asked for: of millions, memory holds none."""

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

Value = TypeVar("Value")


class LazySequence(Sequence[Value]):
    """`count` values, each `value_at(number)`, which must say the same each time."""

    def __init__(self, count: int, value_at: Callable[[int], Value]) -> None:
        self._numbers = range(count)
        self._value_at = value_at

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Value: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Value]: ...

    def __getitem__(self, index: int | slice) -> Value | Sequence[Value]:
        chosen = self._numbers[index]
        if isinstance(chosen, int):
            return self._value_at(chosen)
        return [self._value_at(number) for number in chosen]
