"""Several values of a board in one call of its driver, whose arguments are made once.

`pynvml.nvmlDeviceGetFieldValues` makes them anew each time and answers by structures that are slow to read. It is what
sampling asks most often, and takes the interpreter from the training for as long: by this, for a third of the time.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import pynvml


class _Value(ctypes.Union):
    _fields_ = (("unsigned", ctypes.c_uint), ("unsigned_long_long", ctypes.c_ulonglong))


class Field(ctypes.Structure):
    """`nvmlFieldValue_t` of the driver's header."""

    _fields_ = (
        ("field", ctypes.c_uint),
        ("scope", ctypes.c_uint),
        ("timestamp", ctypes.c_longlong),
        ("latency_us", ctypes.c_longlong),
        ("kind", ctypes.c_uint),
        ("status", ctypes.c_uint),
        ("value", _Value),
    )
    status: int
    value: _Value

    def told(self) -> _Value:
        """Return its value; each field may fail alone.

        Raises:
            pynvml.NVMLError: as the driver says.

        """
        if self.status != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(self.status)
        return self.value


class Fields:
    """The same fields of one board, asked again and again.

    Args:
        board: its handle; the library is open.
        fields: their numbers in the driver's header.

    Raises:
        pynvml.NVMLError: this driver's library has no such function.

    """

    def __init__(self, board: Any, fields: Sequence[int]) -> None:  # noqa: ANN401 - the driver's own handle
        try:
            self._function = pynvml.nvmlLib.nvmlDeviceGetFieldValues
        except AttributeError:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND) from None
        self._fields = (Field * len(fields))(*(Field(field=number) for number in fields))
        self._arguments = board, len(fields), ctypes.byref(self._fields)

    def ask(self) -> Sequence[Field]:
        """Return the fields with what they are now; the next call writes into the same.

        Raises:
            pynvml.NVMLError: the driver did not answer.

        """
        status = self._function(*self._arguments)
        if status != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(status)
        return self._fields  # type: ignore[return-value]  # an array is a sequence, but not to mypy
