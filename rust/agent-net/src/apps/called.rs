//! What an app is called on the page.
//!
//! A segment whose app was given its name is called like its file. One whose name was found has a
//! file `shop-3f9c21d0`, where the digits stand for a deployment (`agent/app/__init__.py`), and a
//! header that says `shop`: it is called so while no other file of the folder claims that name, else
//! like its file. So two deployments are never called alike, and none gets another one's name
//! because of the order in which they came.
//!
//! A file that was begun beside a damaged one, `shop~2`, is called like that one: both are one app.
//!
//! A header that says anything else is not believed.

use std::collections::{HashMap, HashSet};

use agent_shm::Segment;

const DIGITS: usize = 8;

/// The names, in the order of the files, which are given without their suffix. Those of one app are the same.
pub fn names<'a>(files: impl Iterator<Item = (&'a str, &'a Segment)>) -> Vec<String> {
    let wanted: Vec<(&str, String)> = files
        .map(|(file, segment)| {
            let said = segment.header().app;
            let file = base(file, &said);
            (file, claim(file, said))
        })
        .collect();
    let mut claims: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (file, name) in &wanted {
        claims.entry(name).or_default().insert(file);
    }
    let is_alone = |name: &str| claims.get(name).is_some_and(|files| files.len() == 1);
    wanted
        .iter()
        .map(|(file, name)| if is_alone(name) { name.clone() } else { (*file).to_owned() })
        .collect()
}

/// The file that this one is beside, if its header is of the same app.
fn base<'a>(file: &'a str, said: &str) -> &'a str {
    let base = agent_shm::base(file);
    match said == base || claim(base, said.to_owned()) != base {
        true => base,
        false => file,
    }
}

/// What a file would be called if it were alone.
fn claim(file: &str, said: String) -> String {
    let digits = file.strip_prefix(said.as_str()).and_then(|rest| rest.strip_prefix('-'));
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match digits {
        Some(digits) if digits.len() == DIGITS && digits.bytes().all(is_digit) => said,
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_header_that_fits_the_file_is_believed() {
        let is = |file: &str, said: &str| claim(file, said.to_owned());
        assert_eq!(is("shop-3f9c21d0", "shop"), "shop");
        for (file, said) in [
            ("shop", "shop"),
            ("shop-3f9c21d0", "bank"),
            ("shop-3f9c21d0", "shop-3f9c21d"),
            ("shop-3f9c21d0", ""),
            ("shop-3f9c21D0", "shop"),
            ("shop-3f9c21d", "shop"),
        ] {
            assert_eq!(is(file, said), file, "{said}");
        }
    }

    #[test]
    fn a_file_beside_another_is_of_its_app_when_its_header_says_so() {
        for (file, said, expected) in [
            ("shop~2", "shop", "shop"),
            ("shop-3f9c21d0~9", "shop", "shop-3f9c21d0"),
            ("shop~2", "bank", "shop~2"),
            ("shop~1", "shop", "shop~1"),
            ("shop~10", "shop", "shop~10"),
            ("shop", "shop", "shop"),
        ] {
            assert_eq!(base(file, said), expected, "{file} {said}");
        }
    }
}
