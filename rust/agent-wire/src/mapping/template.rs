//! Texts with captures: `orders_$1`, `${2}`, `${word}`, `$$`.

const BYTES_MAX: usize = 512;
const REFERENCES_MAX: usize = 16;

/// What a pattern can catch.
pub(super) struct Groups {
    /// Numbered groups, without the whole.
    pub count: usize,
    /// Names by number; 0 is the whole.
    pub names: Vec<Option<String>>,
}

/// A compiled text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Group(usize),
}

impl Template {
    pub fn compile(text: &str, groups: &Groups) -> Result<Template, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("a template has at most {BYTES_MAX} bytes"));
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            plain.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                plain.push('$');
                rest = after;
                continue;
            }
            let (word, after) = reference(after).ok_or_else(|| {
                format!("in {text:?}, behind $ stands no number (write $$ for $)")
            })?;
            let group = resolve(word, groups)
                .ok_or_else(|| format!("in {text:?}, ${word} catches nothing"))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Group(group));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        if pieces.iter().filter(|piece| matches!(piece, Piece::Group(_))).count() > REFERENCES_MAX {
            return Err(format!("a template has at most {REFERENCES_MAX} references"));
        }
        Ok(Template { pieces })
    }

    /// The text with the captures filled in; bytes that are not UTF-8 become U+FFFD.
    pub fn fill<'n>(&self, group: &impl Fn(usize) -> &'n [u8]) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Group(number) => out.push_str(&String::from_utf8_lossy(group(*number))),
            }
        }
        out
    }
}

/// `1_rest` -> `1`, `{word}rest` -> `word`; and the rest.
fn reference(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}');
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn resolve(word: &str, groups: &Groups) -> Option<usize> {
    match word.parse::<usize>() {
        Ok(number) => (1..=groups.count).contains(&number).then_some(number),
        Err(_) => groups.names.iter().position(|name| name.as_deref() == Some(word)),
    }
}
