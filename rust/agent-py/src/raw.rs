//! Methods without argument parsing.
//!
//! A method that PyO3 generates reads its arguments by name before it does anything. The hot ones
//! here are given to CPython as plain `METH_FASTCALL | METH_KEYWORDS` functions and look at `nargs`
//! themselves. They are installed into each concrete class, because the interpreter's specialised
//! call wants the method's class to be exactly the object's.

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::impl_::trampoline::{self, MethodDef};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use std::ffi::CStr;
use std::marker::PhantomData;
use std::panic::{catch_unwind, AssertUnwindSafe};

pub type Raw = unsafe extern "C" fn(
    *mut ffi::PyObject,
    *const *mut ffi::PyObject,
    ffi::Py_ssize_t,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// One method: name, text of `__doc__` (with the signature line that CPython reads), function.
pub struct Method(pub &'static CStr, pub &'static CStr, pub Raw);

/// Puts the methods into the class.
pub fn install(class: &Bound<'_, PyType>, methods: &[Method]) -> PyResult<()> {
    for Method(name, doc, function) in methods {
        // Leaked: CPython keeps the pointer for as long as the class lives.
        let definition = Box::leak(Box::new(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: *function },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: doc.as_ptr(),
        }));
        // SAFETY: the class is a type object, the definition lives for ever, and a new reference
        // comes back.
        let descriptor = unsafe {
            let made = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
            Bound::from_owned_ptr_or_err(class.py(), made)?
        };
        class.setattr(name.to_string_lossy().as_ref(), descriptor)?;
    }
    Ok(())
}

/// The arguments of one call, borrowed from the interpreter's stack.
#[derive(Clone, Copy)]
pub struct Arguments<'a, 'py> {
    py: Python<'py>,
    values: &'a [*mut ffi::PyObject],
    names: *mut ffi::PyObject,
    positional: usize,
}

impl<'a, 'py> Arguments<'a, 'py> {
    /// # Safety
    /// The pointers are those of a `METH_FASTCALL | METH_KEYWORDS` call that has not returned.
    #[inline]
    pub unsafe fn new(
        py: Python<'py>,
        args: *const *mut ffi::PyObject,
        nargs: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> Self {
        let positional = nargs as usize;
        let mut total = positional;
        if !names.is_null() {
            // SAFETY: not null, so a tuple, as promised by the caller.
            total += unsafe { ffi::PyTuple_GET_SIZE(names) as usize };
        }
        let values = match total {
            // The array may be null when there is nothing in it.
            0 => &[],
            // SAFETY: CPython passes positional and named values in one array.
            _ => unsafe { std::slice::from_raw_parts(args, total) },
        };
        Arguments { py, values, names, positional }
    }

    pub fn positional(&self) -> usize {
        self.positional
    }

    pub fn named(&self) -> usize {
        self.values.len() - self.positional
    }

    #[inline]
    pub fn get(&self, index: usize) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: the interpreter holds a reference to each argument during the call.
        unsafe { Borrowed::from_ptr(self.py, self.values[index]) }
    }

    /// The tuple of the names of the last `named()` values.
    pub fn names(&self) -> Option<Borrowed<'a, 'py, PyTuple>> {
        if self.names.is_null() {
            return None;
        }
        // SAFETY: checked not to be null; it is a tuple of str by CPython's calling convention.
        Some(unsafe { Borrowed::from_ptr(self.py, self.names).cast_unchecked() })
    }

    /// For methods of at most one parameter: its value, if it was given.
    pub fn single(
        &self,
        method: &str,
        parameter: &str,
    ) -> PyResult<Option<Borrowed<'a, 'py, PyAny>>> {
        match (self.positional, self.named()) {
            (0, 0) => Ok(None),
            (1, 0) => Ok(Some(self.get(0))),
            (0, 1) => {
                let names = self.names().map(|names| names.get_item(0)).transpose()?;
                match names {
                    Some(name) if name.eq(parameter)? => Ok(Some(self.get(0))),
                    Some(name) => Err(PyTypeError::new_err(format!(
                        "{method}() has no parameter {name}, only '{parameter}'"
                    ))),
                    None => Ok(None),
                }
            }
            (given, named) => Err(PyTypeError::new_err(format!(
                "{method}() takes one argument, '{parameter}', but {} were given",
                given + named
            ))),
        }
    }
}

/// The slow part of a raw method, run as PyO3 runs the methods that it generates. PyO3 then knows that this thread is
/// attached: references that are dropped go at once instead of waiting for the next method of PyO3, and nothing asks the
/// interpreter for its lock again, which in a sub-interpreter would never be given. A panic becomes an exception, not the
/// end of the process.
///
/// PyO3 has no public name for this; the version is pinned in Cargo.toml.
#[cold]
#[inline(never)]
pub fn enter<F: FnOnce() -> PyResult<*mut ffi::PyObject>>(work: F) -> *mut ffi::PyObject {
    let mut work = Some(work);
    // SAFETY: called by methods, so attached. The pointer goes to `run` as it is, within this call.
    unsafe { trampoline::unaryfunc::<Entry<F>>((&raw mut work).cast()) }
}

struct Entry<F>(PhantomData<F>);

impl<F: FnOnce() -> PyResult<*mut ffi::PyObject>> MethodDef<trampoline::unaryfunc::Func>
    for Entry<F>
{
    const METH: trampoline::unaryfunc::Func = run::<F>;
}

/// # Safety
/// `work` is the pointer that [`enter`] gave.
unsafe fn run<F: FnOnce() -> PyResult<*mut ffi::PyObject>>(
    _: Python<'_>,
    work: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: promised by the caller.
    let work = unsafe { (*work.cast::<Option<F>>()).take() };
    let result = catch_unwind(AssertUnwindSafe(|| work.map_or_else(|| Ok(none()), |work| work())));
    result.unwrap_or_else(|_| {
        Err(PyRuntimeError::new_err("a bug in agent._core: see the message on stderr"))
    })
}

/// As [`enter`], for methods that give nothing.
pub fn slowly(work: impl FnOnce() -> PyResult<()>) -> *mut ffi::PyObject {
    enter(|| work().map(|()| none()))
}

#[inline(always)]
pub fn none() -> *mut ffi::PyObject {
    // SAFETY: called by methods, so attached; `None` lives for ever and a new reference is given.
    unsafe {
        let none = ffi::Py_None();
        ffi::Py_INCREF(none);
        none
    }
}

#[cold]
pub fn raise(py: Python<'_>, error: PyErr) -> *mut ffi::PyObject {
    error.restore(py);
    std::ptr::null_mut()
}
