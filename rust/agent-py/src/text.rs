//! Text from Python. A `str` may hold halves of surrogate pairs (what `os.fsdecode` makes of bytes
//! that are no UTF-8), which no text format can carry: those are refused in words, wherever they
//! come in.

use crate::error::{Kind, Refusal};
use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// An argument of a constructor.
pub struct Text<'a>(pub &'a str);

impl<'a> FromPyObject<'a, '_> for Text<'a> {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, '_, PyAny>) -> PyResult<Text<'a>> {
        value.extract::<&str>().map(Text).map_err(|error| {
            let py = value.py();
            if error.is_instance_of::<PyUnicodeEncodeError>(py) {
                refusal(Kind::Name, "a text of the definition", &value).into()
            } else {
                error
            }
        })
    }
}

/// The text of the value of a label.
pub fn of_label(value: &Bound<'_, PyAny>, family: &str, label: &str) -> PyResult<String> {
    match value.cast::<PyString>()?.to_str() {
        Ok(text) => Ok(text.into()),
        Err(_) => {
            let what = format!("the value of label {label:?} of {family}");
            Err(refusal(Kind::Label, &what, value).into())
        }
    }
}

#[cold]
fn refusal(kind: Kind, what: &str, value: &Bound<'_, PyAny>) -> Refusal {
    let shown = value.repr().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    let text = format!(
        "{what} holds half of a surrogate pair, which UTF-8 cannot carry: {shown}; \
         text.encode(errors=\"replace\").decode() has none"
    );
    Refusal::new(kind, text)
}
