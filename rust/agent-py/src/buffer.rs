//! Many values in one call: anything with the buffer protocol (numpy, array, memoryview), or a list
//! or tuple.
//!
//! Items are f64, f32, i64 or i32 in native byte order, of any number of dimensions, contiguous or
//! strided. f64 that is contiguous is read where it lies; everything else goes through a block of
//! 512 values on the stack. Who applies values looks at all of them first, so that a bad one changes
//! nothing.

use crate::error::{Kind, Refusal};
use crate::number;
use agent_metric::bounds::is_observable;
use agent_shm::COUNTER_END;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use std::os::raw::c_void;

/// Values converted at one time, on the stack.
const CHUNK: usize = 512;
/// Values applied between two looks at whether the series is still there.
const RUN: usize = 1 << 16;

#[derive(Clone, Copy)]
pub enum Item {
    F64,
    F32,
    I64,
    I32,
}

/// Where the values are.
pub enum Values {
    Owned(Vec<f64>),
    Buffer { buffer: PyUntypedBuffer, item: Item },
}

impl Values {
    pub fn of(values: &Bound<'_, PyAny>) -> PyResult<Values> {
        if values.is_instance_of::<PyList>() || values.is_instance_of::<PyTuple>() {
            let mut owned = Vec::with_capacity(values.len()?);
            for value in values.try_iter()? {
                owned.push(number::real(&value?.as_borrowed())?);
            }
            return Ok(Values::Owned(owned));
        }
        let buffer = PyUntypedBuffer::get(values).map_err(|_| {
            let class = values.get_type().name().map(|name| name.to_string()).unwrap_or_default();
            PyErr::from(Refusal::new(
                Kind::Buffer,
                format!("values must be a buffer, a list or a tuple of numbers, not {class}"),
            ))
        })?;
        let format = buffer.format().to_str().unwrap_or("?");
        let code = format.strip_prefix(['@', '=', NATIVE]).unwrap_or(format);
        let item = match (code, buffer.item_size()) {
            ("d", 8) => Item::F64,
            ("f", 4) => Item::F32,
            ("q" | "l", 8) => Item::I64,
            ("i" | "l", 4) => Item::I32,
            _ => {
                let text = format!(
                    "items of a buffer must be f64, f32, i64 or i32 of this machine, not {format:?}"
                );
                return Err(Refusal::new(Kind::Buffer, text).into());
            }
        };
        Ok(Values::Buffer { buffer, item })
    }

    /// Gives all values in runs, in the order of their indexes.
    pub fn each_run(&self, run: &mut dyn FnMut(&[f64])) {
        match self {
            Values::Owned(values) => values.chunks(RUN).for_each(run),
            Values::Buffer { buffer, item: Item::F64 }
                if buffer.is_c_contiguous() && buffer.buf_ptr() as usize % 8 == 0 =>
            {
                if buffer.item_count() == 0 {
                    return;
                }
                // SAFETY: contiguous, aligned, alive while `buffer` is held; this thread stays
                // attached, so Python code does not change it meanwhile.
                let all = unsafe {
                    std::slice::from_raw_parts(buffer.buf_ptr().cast::<f64>(), buffer.item_count())
                };
                all.chunks(RUN).for_each(run);
            }
            Values::Buffer { buffer, item } => {
                let mut block = Block { values: [0.0; CHUNK], len: 0 };
                // SAFETY: shape and strides are those of this buffer.
                unsafe { walk(buffer, *item, 0, buffer.buf_ptr(), &mut block, run) };
                if block.len > 0 {
                    run(&block.values[..block.len]);
                }
            }
        }
    }

    /// The first value that cannot be observed.
    pub fn first_not_observable(&self) -> Option<f64> {
        let mut bad = None;
        self.each_run(&mut |run| {
            // One pass without branches first; the value is looked for only when there is one.
            if !run.iter().fold(true, |fine, value| fine & is_observable(*value)) {
                bad = bad.or_else(|| run.iter().find(|value| !is_observable(**value)).copied());
            }
        });
        bad
    }
}

#[cfg(target_endian = "little")]
const NATIVE: char = '<';
#[cfg(target_endian = "big")]
const NATIVE: char = '>';

struct Block {
    values: [f64; CHUNK],
    len: usize,
}

/// # Safety
/// `start` is where the buffer's dimensions from `dimension` on begin.
unsafe fn walk(
    buffer: &PyUntypedBuffer,
    item: Item,
    dimension: usize,
    start: *const c_void,
    block: &mut Block,
    run: &mut dyn FnMut(&[f64]),
) {
    if dimension == buffer.dimensions() {
        // SAFETY: an item of this buffer, of the checked size; not necessarily aligned.
        block.values[block.len] = unsafe {
            match item {
                Item::F64 => start.cast::<f64>().read_unaligned(),
                Item::F32 => f64::from(start.cast::<f32>().read_unaligned()),
                Item::I64 => start.cast::<i64>().read_unaligned() as f64,
                Item::I32 => f64::from(start.cast::<i32>().read_unaligned()),
            }
        };
        block.len += 1;
        if block.len == CHUNK {
            run(&block.values);
            block.len = 0;
        }
        return;
    }
    let stride = buffer.strides()[dimension];
    for index in 0..buffer.shape()[dimension] {
        // SAFETY: inside of the buffer, by its own shape and strides.
        unsafe {
            let here = start.byte_offset(stride * index as isize);
            walk(buffer, item, dimension + 1, here, block, run);
        }
    }
}

/// Whole part and fraction of the sum of amounts that a counter can be raised by.
pub fn sum_of_amounts(name: &str, values: &Bound<'_, PyAny>) -> PyResult<(u64, f64)> {
    let values = Values::of(values)?;
    let (mut whole, mut fraction) = (0_u128, 0.0);
    let mut bad = None;
    values.each_run(&mut |run| {
        for &value in run {
            // NaN is in no range.
            if !(0.0..COUNTER_END as f64).contains(&value) {
                bad.get_or_insert(value);
                return;
            }
            let part = value as u64;
            whole += u128::from(part);
            fraction += value - part as f64;
        }
    });
    if let Some(value) = bad {
        number::check_amount(name, value)?;
    }
    let carry = fraction as u64;
    whole += u128::from(carry);
    match u64::try_from(whole).ok().filter(|&whole| bad.is_none() && whole < COUNTER_END) {
        Some(whole) => Ok((whole, fraction - carry as f64)),
        None => {
            let text = format!("counter {name} cannot be raised by so much: it ends at 2^63 - 1");
            Err(Refusal::new(Kind::Amount, text).into())
        }
    }
}
