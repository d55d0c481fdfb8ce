//! As much of HTTP/1.1 (RFC 9112) as a server of one text needs: requests without a body, answers with a known length.

use std::fmt::Write as _;
use std::time::SystemTime;

/// Longest head of a request, bytes.
pub(super) const MAX_HEAD: usize = 8 << 10;
/// Most fields in it.
const MAX_FIELDS: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The metrics.
    Metrics,
    /// What there is here.
    Index,
}

/// A whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// For what.
    pub(super) asked: Asked,
    /// Send the answer's head alone.
    pub(super) head_only: bool,
    /// The connection stays open behind the answer.
    pub(super) keeps_alive: bool,
    /// Its bytes.
    pub(super) len: usize,
}

/// What begins with some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Part of a request.
    Incomplete,
    /// A request.
    Request(Request),
    /// Something else: the answer to it, behind which the connection ends.
    Refused(Vec<u8>),
}

/// Reads the request at the front of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let refused = |status: &str| Parsed::Refused(refusal(status, ""));
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD => len,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Parsed::Incomplete,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return refused("431 Request Header Fields Too Large"),
        Err(httparse::Error::Version) => return refused("505 HTTP Version Not Supported"),
        Err(_) => return refused("400 Bad Request"),
    };
    let values = |name: &'static str| {
        let named = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| String::from_utf8_lossy(field.value).to_ascii_lowercase())
    };
    let persistent = request.version == Some(1);
    // RFC 9112 section 3.2: exactly one Host, which HTTP/1.0 did not have yet.
    let hosts = values("host").count();
    // Section 6: either says that a body follows. Nothing here takes one.
    let has_body =
        values("transfer-encoding").next().is_some() || values("content-length").any(|len| len.trim() != "0");
    if hosts > 1 || (persistent && hosts == 0) {
        return refused("400 Bad Request");
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Parsed::Refused(refusal("405 Method Not Allowed", "Allow: GET, HEAD\r\n")),
    };
    if has_body {
        return refused("413 Content Too Large");
    }
    let path = request.path.unwrap_or_default().split('?').next();
    let asked = match path {
        Some("/metrics") => Asked::Metrics,
        Some("/") => Asked::Index,
        _ => return refused("404 Not Found"),
    };
    let closes = values("connection").any(|value| value.split(',').any(|option| option.trim() == "close"));
    Parsed::Request(Request { asked, head_only, keeps_alive: persistent && !closes, len })
}

/// An answer that is no success; the connection ends behind it. `fields`: further ones, each with its line's end.
pub(super) fn refusal(status: &str, fields: &str) -> Vec<u8> {
    let mut answer = head(status, "text/plain; charset=utf-8", status.len() + 1, false, fields);
    let _ = writeln!(answer, "{status}");
    answer.into_bytes()
}

/// A success.
pub(super) fn answer(request: Request, kind: &str, body: &str) -> Vec<u8> {
    let mut answer = head("200 OK", kind, body.len(), request.keeps_alive, "");
    if !request.head_only {
        answer += body;
    }
    answer.into_bytes()
}

fn head(status: &str, kind: &str, len: usize, keeps_alive: bool, fields: &str) -> String {
    let (date, end) =
        (httpdate::fmt_http_date(SystemTime::now()), if keeps_alive { "" } else { "Connection: close\r\n" });
    format!("HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{end}{fields}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: &[u8]) -> String {
        match parse(bytes) {
            Parsed::Refused(answer) => String::from_utf8_lossy(&answer[9..12]).into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn requests_of_prometheus_curl_and_old_clients_are_read() {
        let line = "GET /metrics HTTP/1.1\r\nHost: a:9464\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\n\r\n";
        let asked = Request { asked: Asked::Metrics, head_only: false, keeps_alive: true, len: line.len() };
        assert_eq!(parse(format!("{line}GET /").as_bytes()), Parsed::Request(asked), "and no more than the first");
        (0..line.len()).for_each(|len| assert_eq!(parse(&line.as_bytes()[..len]), Parsed::Incomplete));
        let closing = line.replace("Accept-Encoding: gzip", "connection: foo, Close");
        assert!(matches!(parse(closing.as_bytes()), Parsed::Request(Request { keeps_alive: false, .. })));
        let old = parse(b"HEAD /metrics?x=1 HTTP/1.0\r\n\r\n");
        assert!(matches!(old, Parsed::Request(Request { head_only: true, keeps_alive: false, .. })), "{old:?}");
        assert!(matches!(
            parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Parsed::Request(Request { asked: Asked::Index, .. })
        ));
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"), "400", "TLS");
        assert_eq!(status(b"GET /metrics HTTP/1.1\r\n\r\n"), "400", "no host");
        assert_eq!(status(b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), "400");
        assert_eq!(status(b"GET /metric HTTP/1.1\r\nHost: a\r\n\r\n"), "404");
        assert_eq!(status(b"POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), "405");
        assert_eq!(status(b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"), "413");
        assert_eq!(status(b"GET /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), "413");
        assert_eq!(status(b"GET /metrics HTTP/2.0\r\nHost: a\r\n\r\n"), "505");
        assert_eq!(status(&[b'a'; MAX_HEAD]), "431");
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS));
        assert_eq!(status(many.as_bytes()), "431");
    }

    #[test]
    fn answers_say_how_long_they_are_and_whether_they_are_the_last() {
        let request = Request { asked: Asked::Metrics, head_only: false, keeps_alive: true, len: 0 };
        let whole = String::from_utf8(answer(request, "text/plain", "body\n")).expect("is ASCII");
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\nDate: ") && whole.ends_with("\r\n\r\nbody\n"), "{whole}");
        assert!(whole.contains("Content-Length: 5\r\n") && !whole.contains("Connection"), "{whole}");
        let head = answer(Request { head_only: true, keeps_alive: false, ..request }, "text/plain", "body\n");
        let head = String::from_utf8(head).expect("is ASCII");
        assert!(head.contains("Content-Length: 5\r\nConnection: close\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }
}
