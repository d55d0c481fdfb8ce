//! Aligned tables for people.

use std::fmt;

/// A table: text columns flush left, number columns flush right, units in the heading.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

/// On which side a column is flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

impl Table {
    /// A table with these columns: those that begin with `>` hold numbers, as in `Table::new(["router", ">rtt ms"])`.
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Table {
        let column = |heading: &str| match heading.strip_prefix('>') {
            Some(heading) => (heading.to_owned(), Align::Right),
            None => (heading.to_owned(), Align::Left),
        };
        Table { columns: columns.into_iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row, one cell a column.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let row: Vec<String> = cells.into_iter().map(Into::into).collect();
        assert_eq!(row.len(), self.columns.len(), "a row has as many cells as the table has columns");
        self.rows.push(row);
    }

    /// Whether it has no rows.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn line<'a>(
        &self,
        f: &mut fmt::Formatter<'_>,
        cells: impl Iterator<Item = &'a str>,
        widths: &[usize],
    ) -> fmt::Result {
        let mut line = String::new();
        for ((cell, &width), (_, align)) in cells.zip(widths).zip(&self.columns) {
            match align {
                Align::Left => line += &format!("{cell:<width$}  "),
                Align::Right => line += &format!("{cell:>width$}  "),
            }
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |index: usize| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells.max().unwrap_or(0).max(self.columns[index].0.chars().count())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        self.line(f, self.columns.iter().map(|(heading, _)| heading.as_str()), &widths)?;
        self.rows.iter().try_for_each(|row| self.line(f, row.iter().map(String::as_str), &widths))
    }
}

/// A share in percent, with as many digits as it needs.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.2}", 100.0 * part as f64 / whole as f64) }
}

/// A number with its thousands apart: `1 234 567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bits per second with a unit: `9.87 Mbit/s`.
pub fn bit_rate(bits_per_second: f64) -> String {
    let units = [(1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")];
    match units.iter().find(|(factor, _)| bits_per_second >= *factor) {
        Some((factor, unit)) => format!("{:.2} {unit}", bits_per_second / factor),
        None => format!("{bits_per_second:.0} bit/s"),
    }
}

/// Seconds as a person says them: `4.2s`, `3m 07s`, `5h 02m`, `12d 4h`.
pub fn ago(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3_600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h {:02}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d {}h", whole / 86_400, whole / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_where_their_text_does() {
        let mut table = Table::new(["router", ">rtt ms", "state"]);
        table.row(["frankfurt", "1.25", "up"]);
        table.row(["köln", "110.00", "down: silence"]);
        assert_eq!(
            table.to_string(),
            "\
router     rtt ms  state
frankfurt    1.25  up
köln       110.00  down: silence
"
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            (thousands(0), thousands(999), thousands(1_234_567)),
            ("0".into(), "999".into(), "1 234 567".into())
        );
        assert_eq!(
            (bit_rate(9.87e6), bit_rate(1e9), bit_rate(12.0)),
            ("9.87 Mbit/s".into(), "1.00 Gbit/s".into(), "12 bit/s".into())
        );
        assert_eq!((percent(1, 200), percent(0, 0)), ("0.50".into(), "-".into()));
        assert_eq!((ago(4.25), ago(187.0)), ("4.2s".into(), "3m 07s".into()));
        assert_eq!((ago(18_120.0), ago(1_051_200.0)), ("5h 02m".into(), "12d 4h".into()));
    }
}
