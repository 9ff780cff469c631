//! The table of paths: which there are, what each allows, what each is called in the metrics.

use super::head::Method;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/livez`, and its aliases `/healthz` and `/health`.
    Livez,
    /// `/readyz`, and its alias `/ready`.
    Readyz,
    Metrics,
    Push,
    Schema,
    Status,
    Page,
    Script,
    Style,
    /// `/metrics/job/...`; holds what follows `/metrics/`.
    Gateway(&'a str),
    Unknown,
}

impl<'a> Route<'a> {
    pub fn of(path: &'a str) -> Route<'a> {
        match path {
            "/livez" | "/healthz" | "/health" => Route::Livez,
            "/readyz" | "/ready" => Route::Readyz,
            "/metrics" => Route::Metrics,
            "/v1/push" => Route::Push,
            "/v1/schema" => Route::Schema,
            "/v1/status" => Route::Status,
            "/" => Route::Page,
            "/status.js" => Route::Script,
            "/status.css" => Route::Style,
            _ => match path.strip_prefix("/metrics/") {
                Some(group) if group.starts_with("job") => Route::Gateway(group),
                _ => Route::Unknown,
            },
        }
    }

    /// The methods, as the `Allow` header says them.
    pub fn allow(self) -> &'static str {
        match self {
            Route::Push => "POST",
            Route::Gateway(_) => "PUT, POST, DELETE",
            _ => "GET, HEAD",
        }
    }

    pub fn allows(self, method: Method) -> bool {
        match self {
            Route::Push => method == Method::Post,
            Route::Gateway(_) => matches!(method, Method::Put | Method::Post | Method::Delete),
            _ => matches!(method, Method::Get | Method::Head),
        }
    }

    /// Whether the answer comes from a render thread.
    pub fn is_streamed(self, method: Method) -> bool {
        match self {
            Route::Gateway(_) => method == Method::Delete,
            route => matches!(route, Route::Metrics | Route::Status),
        }
    }

    /// Whether refusals on this path are JSON.
    pub fn is_json(self) -> bool {
        matches!(self, Route::Push | Route::Schema | Route::Status)
    }

    /// Position in [`LABELS`].
    pub fn index(self) -> usize {
        match self {
            Route::Livez => 0,
            Route::Readyz => 1,
            Route::Metrics => 2,
            Route::Push => 3,
            Route::Schema => 4,
            Route::Status => 5,
            Route::Page | Route::Script | Route::Style => 6,
            Route::Gateway(_) => 7,
            Route::Unknown => 8,
        }
    }
}

/// The values of the label `route`; the last one is for what never became a request.
pub const LABELS: [&str; 10] = [
    "livez", "readyz", "metrics", "push", "schema", "status", "page", "gateway", "unknown", "none",
];

/// Position in [`LABELS`] of a request that could not be read.
pub const NO_ROUTE: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_interface_has_its_route() {
        for path in ["/livez", "/healthz", "/health"] {
            assert_eq!(Route::of(path), Route::Livez);
        }
        for path in ["/readyz", "/ready"] {
            assert_eq!(Route::of(path), Route::Readyz);
        }
        assert_eq!(Route::of("/metrics/job/a/b/c"), Route::Gateway("job/a/b/c"));
        assert_eq!(Route::of("/metrics/job@base64/YQ"), Route::Gateway("job@base64/YQ"));
        for path in ["/metrics/", "/metrics/x", "/livez/", "//", "/v1", "*", "/../etc/passwd"] {
            assert_eq!(Route::of(path), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn the_allow_header_says_what_is_allowed() {
        let all = [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("POST", Method::Post),
            ("PUT", Method::Put),
            ("DELETE", Method::Delete),
        ];
        for route in [Route::Livez, Route::Push, Route::Gateway("job/x"), Route::Unknown] {
            for (name, method) in all {
                let said = route.allow().split(", ").any(|allowed| allowed == name);
                assert_eq!(said, route.allows(method), "{route:?} {name}");
            }
            assert!(!route.allows(Method::Other));
        }
    }
}
