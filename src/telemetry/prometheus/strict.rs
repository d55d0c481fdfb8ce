//! A reader of the text format that takes nothing the format does not allow, for tests.

use std::collections::BTreeMap;

/// All series with their values, or the line that is wrong.
///
/// Beyond the format's grammar: every family has HELP, then TYPE, then all its samples; counters end in `_total` and
/// nothing else does; buckets grow to `+Inf`, which is the count; no series comes twice.
pub(crate) fn read(text: &str) -> Result<BTreeMap<String, f64>, String> {
    if !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let (mut series, mut seen, mut family) = (BTreeMap::new(), Vec::<String>::new(), None::<(String, String)>);
    let mut helped = None::<String>;
    let mut bucket = None::<(String, f64, f64)>;
    for line in text.lines() {
        let wrong = |why: &str| Err(format!("{why}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| format!("no help: {line}"))?;
            if seen.contains(&name.to_owned()) || help.is_empty() || !is_name(name) {
                return wrong("not a family of its own");
            }
            seen.push(name.to_owned());
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| format!("no type: {line}"))?;
            if helped.take().as_deref() != Some(name) || !["counter", "gauge", "histogram"].contains(&kind) {
                return wrong("not behind its help");
            }
            if (kind == "counter") != name.ends_with("_total") {
                return wrong("counters end in _total");
            }
            family = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (identity, value) = line.rsplit_once(' ').ok_or_else(|| format!("no value: {line}"))?;
            let value: f64 = value.parse().map_err(|_| format!("not a number: {line}"))?;
            let (name, labels) = identity.split_once('{').ok_or_else(|| format!("no labels: {line}"))?;
            let labels = labels_of(labels.strip_suffix('}').ok_or_else(|| format!("no end: {line}"))?);
            let Some((labels, (family, kind))) = labels.zip(family.as_ref()) else { return wrong("labels") };
            let suffix = name.strip_prefix(family.as_str()).ok_or_else(|| format!("of another family: {line}"))?;
            let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            if !allowed.contains(&suffix) || !is_name(name) || value < 0.0 && kind != "gauge" {
                return wrong("not a sample of this family");
            }
            if suffix == "_bucket" {
                let (others, bound) = bound(&labels).ok_or_else(|| format!("no bound: {line}"))?;
                let before = bucket.take().filter(|(same, ..)| *same == others);
                if before.is_some_and(|(_, below, count)| below >= bound || count > value) {
                    return wrong("buckets do not grow");
                }
                bucket = Some((others, bound, value));
            } else if suffix == "_count" {
                let last = bucket.take().ok_or_else(|| format!("no buckets: {line}"))?;
                if last.1 != f64::INFINITY || last.2 != value {
                    return wrong("not the count of its buckets");
                }
            }
            if series.insert(identity.to_owned(), value).is_some() {
                return wrong("twice");
            }
        }
    }
    Ok(series)
}

fn is_name(name: &str) -> bool {
    name.starts_with("sinew_")
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// `a="x",b="y"` as pairs; none if it is not that, or a label comes twice.
fn labels_of(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::<(String, String)>::new();
    loop {
        let (name, rest) = text.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), rest.char_indices());
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    c @ ('"' | '\\') => c,
                    _ => return None,
                }),
                (_, c) => value.push(c),
            }
        };
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !plain || labels.iter().any(|(known, _)| known == name) {
            return None;
        }
        labels.push((name.to_owned(), value));
        match rest[end + 1..].strip_prefix(',') {
            Some(more) => text = more,
            None if rest.len() == end + 1 => return Some(labels),
            None => return None,
        }
    }
}

/// The other labels, and the upper bound.
fn bound(labels: &[(String, String)]) -> Option<(String, f64)> {
    let (of, others): (Vec<_>, Vec<_>) = labels.iter().partition(|(name, _)| name == "le");
    let bound = match of.first()?.1.as_str() {
        "+Inf" => f64::INFINITY,
        number => number.parse().ok()?,
    };
    Some((format!("{others:?}"), bound))
}

#[test]
fn the_reader_takes_what_is_right_and_nothing_else() {
    let right = "# HELP sinew_a_total What.\n# TYPE sinew_a_total counter\nsinew_a_total{x=\"1\\\"\"} 2\n";
    assert_eq!(read(right).map(|series| series.len()), Ok(1));
    let histogram = "# HELP sinew_h W\n# TYPE sinew_h histogram\nsinew_h_bucket{le=\"1\"} 1\nsinew_h_bucket{le=\"+Inf\"} 2\nsinew_h_sum{x=\"\"} 1\nsinew_h_count{x=\"\"} 2\n";
    assert!(read(histogram).is_ok());
    for (text, from, to) in [
        (right, "# HELP sinew_a_total What.\n", ""),
        (right, "_total", ""),
        (right, " 2\n", " two\n"),
        (right, "\"} 2\n", "\"} 2\nsinew_a_total{x=\"1\\\"\"} 3\n"),
        (right, "{x=\"1\\\"\"}", "{x=\"1\\\"}"),
        (right, "{x=", "{x=\"a\",x="),
        (right, " 2\n", " 2"),
        (histogram, "} 1\nsinew_h_bucket", "} 3\nsinew_h_bucket"),
        (histogram, "le=\"+Inf\"", "le=\"5\""),
        (histogram, "sinew_h_sum", "sinew_g_sum"),
    ] {
        assert!(read(&text.replace(from, to)).is_err(), "{from} → {to}");
    }
}
