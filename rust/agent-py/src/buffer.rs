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
use pyo3::types::{PyList, PyMemoryView, PyTuple};
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

impl Item {
    /// # Safety
    /// There is an item of this size at `place`; not necessarily aligned.
    unsafe fn read(self, place: *const c_void) -> f64 {
        // SAFETY: promised by the caller.
        unsafe {
            match self {
                Item::F64 => place.cast::<f64>().read_unaligned(),
                Item::F32 => f64::from(place.cast::<f32>().read_unaligned()),
                Item::I64 => place.cast::<i64>().read_unaligned() as f64,
                Item::I32 => f64::from(place.cast::<i32>().read_unaligned()),
            }
        }
    }
}

/// Where the values are.
pub enum Values {
    Owned(Vec<f64>),
    Buffer { buffer: PyUntypedBuffer, item: Item },
}

impl Values {
    pub fn of(values: &Bound<'_, PyAny>) -> PyResult<Values> {
        if values.is_instance_of::<PyList>() || values.is_instance_of::<PyTuple>() {
            let mut owned = Vec::new();
            for value in values.try_iter()? {
                owned.push(number::real(&value?.as_borrowed())?);
            }
            return Ok(Values::Owned(owned));
        }
        // What leaves out its strides (arrays of ctypes) has them in a memoryview.
        let buffer = PyUntypedBuffer::get(values)
            .or_else(|_| PyUntypedBuffer::get(PyMemoryView::from(values)?.as_any()));
        let buffer = buffer.map_err(|error| {
            let class = values.get_type().name().map(|name| name.to_string()).unwrap_or_default();
            PyErr::from(Refusal::new(
                Kind::Buffer,
                format!(
                    "values must be a buffer, a list or a tuple of numbers, not {class}: {}",
                    error.value(values.py())
                ),
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
                unsafe {
                    each_item(buffer, 0, buffer.buf_ptr(), &mut |place| {
                        block.values[block.len] = item.read(place);
                        block.len += 1;
                        if block.len == CHUNK {
                            run(&block.values);
                            block.len = 0;
                        }
                    });
                }
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

/// Gives the place of every item, in the order of their indexes.
///
/// # Safety
/// `start` is where the buffer's dimensions from `dimension` on begin.
unsafe fn each_item(
    buffer: &PyUntypedBuffer,
    dimension: usize,
    start: *const c_void,
    each: &mut dyn FnMut(*const c_void),
) {
    if dimension == buffer.dimensions() {
        return each(start);
    }
    let stride = buffer.strides()[dimension];
    for index in 0..buffer.shape()[dimension] {
        // SAFETY: inside of the buffer, by its own shape and strides.
        unsafe {
            let here = start.byte_offset(stride * index as isize);
            each_item(buffer, dimension + 1, here, each);
        }
    }
}

/// Whole part and fraction of the sum of amounts that a counter can be raised by; whole numbers of Python and of buffers
/// are added exactly.
pub fn sum_of_amounts(name: &str, values: &Bound<'_, PyAny>) -> PyResult<(u64, f64)> {
    let mut sum = Amounts::default();
    if values.is_instance_of::<PyList>() || values.is_instance_of::<PyTuple>() {
        for value in values.try_iter()? {
            let value = value?;
            match number::whole(&value.as_borrowed()) {
                Some(whole) => sum.whole += u128::from(whole),
                None => sum.add(number::real(&value.as_borrowed())?),
            }
        }
        return sum.checked(name);
    }
    match Values::of(values)? {
        Values::Buffer { buffer, item: Item::I64 } => {
            // SAFETY: shape and strides are those of this buffer, and its items are i64.
            unsafe {
                each_item(&buffer, 0, buffer.buf_ptr(), &mut |item| {
                    let value = item.cast::<i64>().read_unaligned();
                    match u64::try_from(value) {
                        Ok(whole) => sum.whole += u128::from(whole),
                        Err(_) => sum.add(value as f64),
                    }
                });
            }
        }
        values => values.each_run(&mut |run| run.iter().for_each(|&value| sum.add(value))),
    }
    sum.checked(name)
}

/// A sum of amounts, and the first that is none.
#[derive(Default)]
struct Amounts {
    whole: u128,
    fraction: f64,
    bad: Option<f64>,
}

impl Amounts {
    fn add(&mut self, value: f64) {
        // NaN is in no range.
        if !(0.0..COUNTER_END as f64).contains(&value) {
            self.bad.get_or_insert(value);
            return;
        }
        let part = value as u64;
        self.whole += u128::from(part);
        self.fraction += value - part as f64;
    }

    fn checked(self, name: &str) -> PyResult<(u64, f64)> {
        if let Some(value) = self.bad {
            number::check_amount(name, value)?;
        }
        let carry = self.fraction as u64;
        let whole = u64::try_from(self.whole + u128::from(carry)).ok();
        match whole.filter(|&whole| self.bad.is_none() && whole < COUNTER_END) {
            Some(whole) => Ok((whole, self.fraction - carry as f64)),
            None => {
                let text =
                    format!("counter {name} cannot be raised by so much: it ends at 2^63 - 1");
                Err(Refusal::new(Kind::Amount, text).into())
            }
        }
    }
}
