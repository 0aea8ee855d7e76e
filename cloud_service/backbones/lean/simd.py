"""
Vectors of sixteen numbers for compiled functions, and what the kernels do with them.

LLVM makes of them what the processor has: one register of AVX-512, two of AVX2, four of NEON. Only
``dot`` names an instruction of one processor, and has a plain form for all others.
Offsets count elements of the array, which must be contiguous; nothing checks them.
"""

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import types
from numba.extending import intrinsic, models, register_model

LANES = 16

HAS_INT8_DOT = bool(get_host_cpu_features().get("avx512vnni"))
"""Whether the processor multiplies and adds bytes in one instruction."""

_I8, _I32, _F32 = ir.IntType(8), ir.IntType(32), ir.FloatType()
_FLOATS, _INTS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_BYTES = ir.VectorType(_I8, 4 * LANES)
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.4426950408889634, 0.693359375, -2.12194440e-4
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
"""Coefficients of Cephes' expf."""


class Vector(types.Type):
    """The type of one vector in compiled code."""

    def __init__(self, name: str, form: ir.VectorType) -> None:
        self.form = form
        super().__init__(name)


floats = Vector("floats", _FLOATS)  # 16 float32
ints = Vector("ints", _INTS)  # 16 int32
octets = Vector("octets", _BYTES)  # 16 groups of 4 bytes


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.form)


def _address(context: Any, builder: Any, kind: Any, array: Any, offset: Any, form: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), form.as_pointer())


def _call(builder: Any, name: str, result: Any, arguments: Any) -> Any:
    kinds = [argument.type for argument in arguments]
    declared = builder.module.declare_intrinsic(name, (), ir.FunctionType(result, kinds))
    return builder.call(declared, arguments)


def _splat(builder: Any, value: Any, form: ir.VectorType) -> Any:
    undefined = ir.Constant(form, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    lanes = ir.Constant(ir.VectorType(_I32, form.count), [0] * form.count)
    return builder.shuffle_vector(first, undefined, lanes)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [value] * LANES)


def _offset(offset: Any) -> Any:
    return types.intp if isinstance(offset, types.Integer) else offset


@intrinsic
def load(_typing: Any, array: Any, offset: Any) -> Any:
    """Return 16 neighbours of an array of float32, float16 (kept as int16), bfloat16 (as uint16) or int8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        element = {
            types.float32: _F32,
            types.int16: ir.HalfType(),
            types.uint16: ir.IntType(16),
            types.int8: _I8,
        }
        form = ir.VectorType(element[kind.dtype], LANES)
        bits = kind.dtype.bitwidth
        value = builder.load(
            _address(context, builder, kind, arguments[0], arguments[1], form),
            align=bits // 8,
            typ=form,
        )
        if kind.dtype == types.float32:
            return value
        if kind.dtype == types.int8:
            return builder.sitofp(value, _FLOATS)
        if kind.dtype == types.int16:
            return builder.fpext(value, _FLOATS)
        wide = builder.zext(value, _INTS)
        return builder.bitcast(builder.shl(wide, ir.Constant(_INTS, [16] * LANES)), _FLOATS)

    return floats(array, _offset(offset)), generate


@intrinsic
def store(_typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write 16 floats into an array of float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = _address(context, builder, signature.args[0], arguments[0], arguments[1], _FLOATS)
        builder.store(arguments[2], target, align=4)
        return context.get_dummy_value()

    return types.void(array, _offset(offset), value), generate


@intrinsic
def store_codes(_typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write 16 ints, each within -128 to 127, into an array of int8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        form = ir.VectorType(_I8, LANES)
        target = _address(context, builder, signature.args[0], arguments[0], arguments[1], form)
        builder.store(builder.trunc(arguments[2], form), target, align=1)
        return context.get_dummy_value()

    return types.void(array, _offset(offset), value), generate


@intrinsic
def load_octets(_typing: Any, array: Any, offset: Any) -> Any:
    """Return 64 neighbouring bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = _address(context, builder, signature.args[0], arguments[0], arguments[1], _BYTES)
        return builder.load(source, align=1, typ=_BYTES)

    return octets(array, _offset(offset)), generate


@intrinsic
def four(_typing: Any, array: Any, offset: Any) -> Any:
    """Return 4 neighbouring bytes, sixteen times."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = _address(context, builder, signature.args[0], arguments[0], arguments[1], _I32)
        value = builder.load(source, align=1, typ=_I32)
        return builder.bitcast(_splat(builder, value, _INTS), _BYTES)

    return octets(array, _offset(offset)), generate


@intrinsic
def load_pair(_typing: Any, array: Any, number: Any) -> Any:
    """
    Return the ``number``-th 2 x 64 codes of an array.

    Of uint8, the lower and the upper halves of 64 bytes; of int8, 128 bytes, taken as unsigned.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        halves = kind.dtype == types.uint8
        form = _BYTES if halves else ir.VectorType(_I8, 8 * LANES)
        size = ir.Constant(arguments[1].type, form.count)
        offset = builder.mul(arguments[1], size)
        value = builder.load(
            _address(context, builder, kind, arguments[0], offset, form), align=1, typ=form
        )
        if halves:
            low = builder.and_(value, ir.Constant(_BYTES, [15] * 4 * LANES))
            high = builder.lshr(value, ir.Constant(_BYTES, [4] * 4 * LANES))
        else:
            undefined = ir.Constant(form, ir.Undefined)
            order = ir.VectorType(_I32, 4 * LANES)
            low = builder.shuffle_vector(value, undefined, ir.Constant(order, list(range(64))))
            high = builder.shuffle_vector(
                value, undefined, ir.Constant(order, list(range(64, 128)))
            )
        return context.make_tuple(builder, signature.return_type, (low, high))

    return types.UniTuple(octets, 2)(array, _offset(number)), generate


@intrinsic
def dot(_typing: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Add to each of 16 ints the four products of unsigned and signed bytes of its group."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        if HAS_INT8_DOT:
            return _call(builder, "llvm.x86.avx512.vpdpbusd.512", _INTS, arguments)
        wide = ir.VectorType(_I32, 4 * LANES)
        products = builder.mul(builder.zext(arguments[1], wide), builder.sext(arguments[2], wide))
        total = arguments[0]
        for place in range(4):
            lanes = [4 * lane + place for lane in range(LANES)]
            picked = ir.Constant(ir.VectorType(_I32, LANES), lanes)
            part = builder.shuffle_vector(products, ir.Constant(wide, ir.Undefined), picked)
            total = builder.add(total, part)
        return total

    return ints(total, unsigned, signed), generate


@intrinsic
def no_ints(_typing: Any) -> Any:
    """Return 16 zeros."""

    def generate(_context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return ir.Constant(_INTS, [0] * LANES)

    return ints(), generate


@intrinsic
def to_floats(_typing: Any, value: Any) -> Any:
    """Return 16 ints as floats."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.sitofp(arguments[0], _FLOATS)

    return floats(value), generate


@intrinsic
def rounded(_typing: Any, value: Any) -> Any:
    """Return the nearest ints, halves to even."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        near = _call(builder, "llvm.rint.v16f32", _FLOATS, arguments)
        return builder.fptosi(near, _INTS)

    return ints(value), generate


@intrinsic
def splat(_typing: Any, value: Any) -> Any:
    """Return one float32 sixteen times."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0], _FLOATS)

    return floats(types.float32), generate


@intrinsic
def fma(_typing: Any, first: Any, second: Any, third: Any) -> Any:
    """Return first * second + third, rounded once."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _call(builder, "llvm.fma.v16f32", _FLOATS, arguments)

    return floats(first, second, third), generate


@intrinsic
def add(_typing: Any, first: Any, second: Any) -> Any:
    """Return the sums."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments)

    return floats(first, second), generate


@intrinsic
def sub(_typing: Any, first: Any, second: Any) -> Any:
    """Return the differences."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fsub(*arguments)

    return floats(first, second), generate


@intrinsic
def mul(_typing: Any, first: Any, second: Any) -> Any:
    """Return the products."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments)

    return floats(first, second), generate


@intrinsic
def div(_typing: Any, first: Any, second: Any) -> Any:
    """Return the quotients."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fdiv(*arguments)

    return floats(first, second), generate


@intrinsic
def larger(_typing: Any, first: Any, second: Any) -> Any:
    """Return the larger of each two."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        more = builder.fcmp_ordered(">", *arguments)
        return builder.select(more, *arguments)

    return floats(first, second), generate


@intrinsic
def magnitude(_typing: Any, value: Any) -> Any:
    """Return the absolute values."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _call(builder, "llvm.fabs.v16f32", _FLOATS, arguments)

    return floats(value), generate


@intrinsic
def exp(_typing: Any, value: Any) -> Any:
    """Return e to the power of each float, within 2e-7 of it; below -87 the same as at -87."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        def fused(first: Any, second: Any, third: Any) -> Any:
            return _call(builder, "llvm.fma.v16f32", _FLOATS, (first, second, third))

        def held(value: Any, word: str, bound: float) -> Any:
            limit = _constant(bound)
            return builder.select(builder.fcmp_ordered(word, value, limit), value, limit)

        x = held(held(arguments[0], ">", -87.0), "<", 88.0)
        scaled = builder.fmul(x, _constant(_LOG2_E))
        whole = _call(builder, "llvm.rint.v16f32", _FLOATS, (scaled,))
        rest = fused(whole, _constant(-_LN2_HIGH), x)
        rest = fused(whole, _constant(-_LN2_LOW), rest)
        curve = _constant(_EXP[0])
        for coefficient in _EXP[1:]:
            curve = fused(curve, rest, _constant(coefficient))
        curve = fused(curve, builder.fmul(rest, rest), builder.fadd(rest, _constant(1.0)))
        power = builder.shl(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(curve, _INTS), power), _FLOATS)

    return floats(value), generate


@intrinsic
def total(_typing: Any, value: Any) -> Any:
    """Return the sum of 16 floats."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _folded(builder, arguments[0], _FLOATS, builder.fadd)

    return types.float32(value), generate


@intrinsic
def total_ints(_typing: Any, value: Any) -> Any:
    """Return the sum of 16 ints."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _folded(builder, arguments[0], _INTS, builder.add)

    return types.int32(value), generate


@intrinsic
def largest(_typing: Any, value: Any) -> Any:
    """Return the largest of 16 floats."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        def more(first: Any, second: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", first, second), first, second)

        return _folded(builder, arguments[0], _FLOATS, more)

    return types.float32(value), generate


def _folded(builder: Any, value: Any, form: ir.VectorType, join: Any) -> Any:
    """Join the halves of a vector until one number is left."""
    half = LANES // 2
    while half:
        lanes = [(lane + half) % LANES for lane in range(LANES)]
        order = ir.Constant(ir.VectorType(_I32, LANES), lanes)
        value = join(value, builder.shuffle_vector(value, ir.Constant(form, ir.Undefined), order))
        half //= 2
    return builder.extract_element(value, ir.Constant(_I32, 0))
