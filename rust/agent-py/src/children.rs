//! The children of a metric with labels, by their values.
//!
//! Keys are tuples of exact `str`, so looking one up runs no foreign code. A call by keyword is
//! turned into the constructor's order by the names, in the order of the call: the last few such
//! orders are remembered. The tuple of names is one constant object per place in the code, or new in
//! every call (`labels(**tags)`); the names in it are the same objects as a rule, because Python
//! keeps one of each name. Names are compared by identity, so looking an order up runs no foreign
//! code either.

use agent_client::name::LABELS_MAX;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::cell::UnsafeCell;

/// Orders of names that are remembered; a new one takes the place of the oldest.
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
    places: Places,
}

/// For each label of a metric, which value of a call by keyword is its own.
pub type Places = [u8; LABELS_MAX];

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
    pub fn places(&self, names: *mut ffi::PyObject) -> Option<Places> {
        // SAFETY: attached; `learn` is the only other user, and a copy is given, so that no reference
        // is kept over a call of it: whatever makes an object may run the garbage collector, and
        // with it code that calls `learn`.
        let shapes = unsafe { &*self.shapes.get() };
        let same = shapes.iter().find(|shape| shape.names.as_ptr() == names);
        // SAFETY: `names` is the tuple of names of a call under way, the others are ours.
        let is_alike = |shape: &Shape| unsafe { has_same_items(shape.names.as_ptr(), names) };
        let alike = || shapes.iter().find(|shape| is_alike(shape));
        same.or_else(alike).map(|shape| shape.places)
    }

    pub fn learn(&self, names: Borrowed<'_, '_, PyTuple>, places: &[usize]) {
        // SAFETY: as in `places`.
        let shapes = unsafe { &mut *self.shapes.get() };
        let mut of_labels = [0; LABELS_MAX];
        for (of_label, &place) in of_labels.iter_mut().zip(places) {
            *of_label = place as u8;
        }
        let oldest = (shapes.len() == SHAPES_MAX).then(|| shapes.remove(0));
        shapes.push(Shape { names: names.to_owned().unbind(), places: of_labels });
        // Last: to let go of it may run code.
        drop(oldest);
    }
}

/// # Safety
/// Both are live tuples, and the thread is attached.
unsafe fn has_same_items(ours: *mut ffi::PyObject, theirs: *mut ffi::PyObject) -> bool {
    // SAFETY: promised by the caller; every index is below the size of both.
    unsafe {
        let size = ffi::PyTuple_GET_SIZE(ours);
        size == ffi::PyTuple_GET_SIZE(theirs)
            && (0..size).all(|index| {
                ffi::PyTuple_GET_ITEM(ours, index) == ffi::PyTuple_GET_ITEM(theirs, index)
            })
    }
}
