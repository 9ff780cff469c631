//! The children of a metric with labels, by their values.
//!
//! Keys are tuples of exact `str`, so looking one up runs no foreign code. A call by keyword is
//! turned into the constructor's order through the tuple of names, which is one constant object per
//! place in the code: the last few such tuples are remembered by identity.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::cell::UnsafeCell;

/// Places of calls by keyword that are remembered.
const SHAPES_MAX: usize = 4;

pub struct Children {
    by_values: Py<PyDict>,
    shapes: UnsafeCell<Vec<Shape>>,
}

// SAFETY: touched only by attached threads, one at a time (the module declares `gil_used`).
unsafe impl Sync for Children {}

/// The names of one keyword call, and for each label of the metric the place of its value.
struct Shape {
    names: Py<PyTuple>,
    places: Box<[usize]>,
}

impl Children {
    pub fn new(py: Python<'_>) -> Children {
        Children { by_values: PyDict::new(py).unbind(), shapes: UnsafeCell::default() }
    }

    /// The child of a key as a new reference, or null (and never an exception for exact strings).
    ///
    /// # Safety
    /// `key` is a tuple of exact `str`, and the thread is attached.
    #[inline]
    pub unsafe fn get_raw(&self, key: *mut ffi::PyObject) -> *mut ffi::PyObject {
        // SAFETY: both are live objects; the reference is borrowed from the dict and made ours at
        // once.
        unsafe {
            let found = ffi::PyDict_GetItemWithError(self.by_values.as_ptr(), key);
            ffi::Py_XINCREF(found);
            found
        }
    }

    pub fn get<'py>(&self, key: &Bound<'py, PyTuple>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.by_values.bind(key.py()).get_item(key)
    }

    /// Remembers a child. At `children_max` all are forgotten first: handles are cheap to make
    /// again.
    pub fn put(
        &self,
        key: &Bound<'_, PyTuple>,
        child: &Bound<'_, PyAny>,
        children_max: usize,
    ) -> PyResult<()> {
        let by_values = self.by_values.bind(key.py());
        if by_values.len() >= children_max {
            by_values.clear();
        }
        by_values.set_item(key, child)
    }

    pub fn forget(&self, key: &Bound<'_, PyTuple>) -> PyResult<()> {
        let by_values = self.by_values.bind(key.py());
        if by_values.contains(key)? {
            by_values.del_item(key)?;
        }
        Ok(())
    }

    pub fn clear(&self, py: Python<'_>) {
        self.by_values.bind(py).clear();
    }

    /// Where the values of a known keyword call stand.
    #[inline]
    pub fn places(&self, names: *mut ffi::PyObject) -> Option<&[usize]> {
        // SAFETY: attached; `learn` is the only other user, and no reference is kept over a call of
        // it.
        let shapes = unsafe { &*self.shapes.get() };
        shapes.iter().find(|shape| shape.names.as_ptr() == names).map(|shape| &*shape.places)
    }

    pub fn learn(&self, names: Borrowed<'_, '_, PyTuple>, places: Vec<usize>) {
        // SAFETY: as in `places`.
        let shapes = unsafe { &mut *self.shapes.get() };
        let shape = Shape { names: names.to_owned().unbind(), places: places.into() };
        if shapes.len() < SHAPES_MAX {
            shapes.push(shape);
        }
    }
}
