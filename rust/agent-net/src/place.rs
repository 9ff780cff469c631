//! Where a process stands among its siblings: a worker by its number, or the desk. It is the value of
//! the label `worker`, and outlives the process: a successor has the same place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DESK: &str = "desk";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Numbers begin at 0.
    Worker(u32),
    /// See [`crate::desk`].
    Desk,
}

impl Place {
    /// Its place in a list of all workers and, last, the desk.
    pub fn index(self, workers: usize) -> usize {
        match self {
            Place::Worker(number) => number as usize,
            Place::Desk => workers,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Worker(number) => number.fmt(out),
            Place::Desk => out.write_str(DESK),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        if text == DESK {
            return Ok(Place::Desk);
        }
        text.parse()
            .map(Place::Worker)
            .map_err(|_| format!("{text:?} is neither the number of a worker nor {DESK:?}"))
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Place::Worker(number) => serializer.serialize_u32(*number),
            Place::Desk => serializer.serialize_str(DESK),
        }
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Place, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Told {
            Number(u32),
            Name(String),
        }
        match Told::deserialize(deserializer)? {
            Told::Number(number) => Ok(Place::Worker(number)),
            Told::Name(name) => name.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_it_is_written() {
        for (place, text, json) in [(Place::Worker(7), "7", "7"), (Place::Desk, "desk", "\"desk\"")]
        {
            assert_eq!(place.to_string(), text);
            assert_eq!(text.parse(), Ok(place));
            assert_eq!(serde_json::to_string(&place).expect("plain"), json);
            assert_eq!(serde_json::from_str::<Place>(json).expect("plain"), place);
        }
        assert_eq!(Place::Desk.index(3), 3);
        assert!("tail".parse::<Place>().expect_err("no such place").contains("\"tail\""));
    }
}
