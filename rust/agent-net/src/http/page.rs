//! The status page: three files in the binary, no resource from elsewhere.
//!
//! The script reads `/v1/status` and writes text nodes only; the security policy lets it load
//! nothing and send nothing but that request, so a label value that looks like HTML stays text.

use super::routes::Route;

const HTML: &str = include_str!("assets/status.html");
const SCRIPT: &str = include_str!("assets/status.js");
const STYLE: &str = include_str!("assets/status.css");

/// Sent with each of the three.
pub const SECURITY_HEADERS: &[(&str, &str)] = &[
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
];

/// Sent with what changes all the time.
pub const FRESH: &[(&str, &str)] = &[("Cache-Control", "no-store")];

/// Content type and text of the page, its script or its style.
pub fn asset(route: Route<'_>) -> (&'static str, &'static str) {
    match route {
        Route::Script => ("text/javascript; charset=utf-8", SCRIPT),
        Route::Style => ("text/css; charset=utf-8", STYLE),
        _ => ("text/html; charset=utf-8", HTML),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_writes_text_only() {
        for text in [HTML, SCRIPT, STYLE] {
            assert!(
                !text.contains("http://") && !text.contains("https://") && !text.contains("//cdn")
            );
        }
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!SCRIPT.contains(sink), "{sink}");
        }
        // The policy forbids both, so the page would not work with them.
        assert!(!HTML.contains("style=") && !HTML.contains("<style") && !HTML.contains(" on"));
        assert!(HTML.contains("src=\"/status.js\"") && HTML.contains("href=\"/status.css\""));
    }
}
