//! What an app is called on the page.
//!
//! A segment whose app was given its name is called like its file. One whose name was found has a
//! file `shop-3f9c21d0`, where the digits stand for a deployment (`agent/app/__init__.py`), and a
//! header that says `shop`: it is called so while no other file of the folder claims that name, else
//! like its file. So two deployments are never called alike, and none gets another one's name
//! because of the order in which they came.
//!
//! Files of one name in two shared folders, which are of two users, are called with their folders: `shop@/run/apps/alice`.
//! Those of the own folder are called as if there were no others, and of two files of one name it is the shared one that gets
//! its folder. So nobody's files change what ours are called.
//! A file that was begun beside a damaged one, `shop~2`, is called like that one: both are one app.
//!
//! A header that says anything else is not believed.

use std::collections::{HashMap, HashSet};
use std::path::Path;

const DIGITS: usize = 8;

/// A file of an app.
pub struct File<'a> {
    /// Without suffix and folder.
    pub stem: &'a str,
    pub folder: &'a Path,
    pub is_shared: bool,
    /// What its header says.
    pub said: String,
}

/// The names, in the order of the files. Those of one app are the same.
pub fn names(files: &[File<'_>]) -> Vec<String> {
    let own = names_among(files.iter().filter(|file| !file.is_shared));
    let mut own = own.into_iter();
    // As if all were of one owner; then the own ones are what they are without the others.
    let mut names = names_among(files.iter());
    for (name, _) in names.iter_mut().zip(files).filter(|(_, file)| !file.is_shared) {
        *name = own.next().unwrap_or_default();
    }
    let mut folders: HashMap<&str, HashSet<&Path>> = HashMap::new();
    for (name, file) in names.iter().zip(files) {
        folders.entry(name).or_default().insert(file.folder);
    }
    let is_disputed: Vec<bool> = names.iter().map(|name| folders[&**name].len() > 1).collect();
    for ((name, file), is_disputed) in names.iter_mut().zip(files).zip(is_disputed) {
        if file.is_shared && is_disputed {
            *name = with_folder(base(file.stem, &file.said), file.folder);
        }
    }
    names
}

fn with_folder(stem: &str, folder: &Path) -> String {
    format!("{stem}@{}", folder.display())
}

fn names_among<'a>(files: impl Iterator<Item = &'a File<'a>> + Clone) -> Vec<String> {
    let mut claims: HashMap<&str, HashSet<(&str, &Path)>> = HashMap::new();
    let mut stems: HashMap<&str, HashSet<&Path>> = HashMap::new();
    for file in files.clone() {
        let stem = base(file.stem, &file.said);
        claims.entry(claim(stem, &file.said)).or_default().insert((stem, file.folder));
        stems.entry(stem).or_default().insert(file.folder);
    }
    let name = |file: &File<'_>| {
        let stem = base(file.stem, &file.said);
        let wanted = claim(stem, &file.said);
        match (claims[wanted].len(), stems[stem].len()) {
            (1, _) => wanted.to_owned(),
            (_, 1) => stem.to_owned(),
            _ => with_folder(stem, file.folder),
        }
    };
    files.map(name).collect()
}

/// The file that this one is beside, if its header is of the same app.
fn base<'a>(file: &'a str, said: &str) -> &'a str {
    let base = agent_shm::base(file);
    match said == base || claim(base, said) != base {
        true => base,
        false => file,
    }
}

/// What a file would be called if it were alone.
fn claim<'a>(file: &'a str, said: &'a str) -> &'a str {
    let digits = file.strip_prefix(said).and_then(|rest| rest.strip_prefix('-'));
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match digits {
        Some(digits) if digits.len() == DIGITS && digits.bytes().all(is_digit) => said,
        _ => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_folders_never_give_two_apps_one_name() {
        let (one, two) = (Path::new("/run/one"), Path::new("/run/two"));
        let file = |stem, folder, said: &str| {
            let said = said.to_owned();
            File { stem, folder, is_shared: true, said }
        };
        let found = file("shop-3f9c21d0", one, "shop");
        assert_eq!(names(&[file("blog", one, "blog"), found]), ["blog", "shop"]);
        let files = [
            file("shop", one, "shop"),
            file("shop", two, "shop"),
            file("shop-3f9c21d0", two, "shop"),
            file("blog", two, "blog"),
        ];
        assert_eq!(names(&files), ["shop@/run/one", "shop@/run/two", "shop-3f9c21d0", "blog"]);
    }

    #[test]
    fn no_file_of_a_shared_folder_changes_what_an_own_one_is_called() {
        let (own, eve) = (Path::new("/run/own"), Path::new("/run/eve"));
        let file = |stem, folder, said: &str| {
            let said = said.to_owned();
            File { stem, folder, is_shared: folder == eve, said }
        };
        let ours = [("good", "good"), ("shop-3f9c21d0", "shop")];
        for ours in [ours, [("shop-77a01b4e", "shop"), ("shop-3f9c21d0", "shop")]] {
            let ours = || ours.map(|(stem, said)| file(stem, own, said));
            let alone = names(&ours());
            let theirs = [("good", "good"), ("shop", "shop"), ("shop-3f9c21d0", "shop-3f9c21d0")];
            for (stem, said) in theirs {
                let mut files: Vec<File<'_>> = ours().into();
                files.insert(1, file(stem, eve, said));
                let mut found = names(&files);
                let their = found.remove(1);
                assert_eq!(found, alone, "{stem}");
                assert!(!alone.contains(&their), "{their}");
            }
        }
        assert_eq!(
            names(&[file("good", own, "good"), file("good", eve, "good")]),
            ["good", "good@/run/eve"]
        );
    }

    #[test]
    fn only_a_header_that_fits_the_file_is_believed() {
        assert_eq!(claim("shop-3f9c21d0", "shop"), "shop");
        for (file, said) in [
            ("shop", "shop"),
            ("shop-3f9c21d0", "bank"),
            ("shop-3f9c21d0", "shop-3f9c21d"),
            ("shop-3f9c21d0", ""),
            ("shop-3f9c21D0", "shop"),
            ("shop-3f9c21d", "shop"),
        ] {
            assert_eq!(claim(file, said), file, "{said}");
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
