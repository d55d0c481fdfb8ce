//! Histograms as files, one each, as HdrHistogram's tools read them (`.hgrm`).

use crate::telemetry::{hgrm, hlog};
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

/// What a histogram of a worker is called, in letters that file names and tags may have.
pub(super) fn name(worker: usize, entry: &Value) -> String {
    let of = entry["peer"].as_str().map_or_else(String::new, |peer| format!("-to-{peer}"));
    let name = format!("worker{worker}{of}-{}", entry["name"].as_str().unwrap_or_default());
    name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

/// Writes every histogram that is not empty to a file of `directory`, values in milliseconds; gives their number.
/// `workers`: the answer to `Request::Histograms`.
pub fn write(workers: &[Value], directory: &Path) -> io::Result<usize> {
    std::fs::create_dir_all(directory)?;
    let mut written = 0;
    for (number, worker) in workers.iter().enumerate() {
        for entry in worker["histograms"].as_array().into_iter().flatten() {
            let histogram = hlog::decode(entry["hdr"].as_str().unwrap_or_default()).map_err(io::Error::other)?;
            if histogram.is_empty() {
                continue;
            }
            let mut file = BufWriter::new(File::create(directory.join(name(number, entry) + ".hgrm"))?);
            hgrm::write(&mut file, &histogram, hgrm::MILLISECONDS)?;
            file.flush()?;
            written += 1;
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Histogram;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn histograms_become_files_that_the_tools_read() {
        let directory = std::env::temp_dir().join(format!("sinew-hgrm-{}", std::process::id()));
        let mut histogram = Histogram::new();
        histogram.record(Duration::from_millis(7));
        let entry = |name: &str, peer: Option<&str>, histogram: &Histogram| json!({"name": name, "peer": peer, "hdr": hlog::encode(histogram.inner())});
        let list = [entry("one_way", Some("a/b"), &histogram), entry("turn", None, &Histogram::new())];
        let written = write(&[json!({ "histograms": list })], &directory).expect("is written");
        let text = std::fs::read_to_string(directory.join("worker0-to-a_b-one_way.hgrm")).expect("is there");
        std::fs::remove_dir_all(&directory).expect("is removed");
        assert_eq!(written, 1);
        assert!(text.contains("Value     Percentile TotalCount") && text.contains("Total count    =            1]"));
    }
}
