//! Tables for people: aligned columns without borders.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use std::io::IsTerminal;

/// How a table may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Colours and bold type.
    pub colour: bool,
    /// Columns of the terminal; `None` = as wide as needed.
    pub width: Option<u16>,
}

impl Look {
    /// What standard output can show; `NO_COLOR` is honoured.
    pub fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = if terminal { terminal_width() } else { None };
        Self { colour: terminal && !refused, width }
    }

    /// Neither colours nor a width.
    pub const PLAIN: Self = Self { colour: false, width: None };
}

/// What a cell says beyond its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Warning,
    /// Broken.
    Bad,
}

/// A table being filled.
#[derive(Debug)]
pub struct Sheet {
    look: Look,
    table: Table,
    rows: usize,
}

/// A column: its heading, and whether it holds numbers.
#[derive(Clone, Copy, Debug)]
pub struct Column(pub &'static str, pub Align);

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

impl Sheet {
    /// A table with these columns.
    pub fn new(look: Look, columns: &[Column]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(match look.width {
            Some(_) => ContentArrangement::Dynamic,
            None => ContentArrangement::Disabled,
        });
        if look.colour {
            table.enforce_styling();
        }
        if let Some(width) = look.width {
            table.set_width(width);
        }
        table.set_header(columns.iter().map(|Column(name, _)| {
            let cell = Cell::new(name);
            if look.colour { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
        for (place, Column(_, align)) in columns.iter().enumerate() {
            if let Some(column) = table.column_mut(place) {
                column.set_padding((0, 2));
                column.set_cell_alignment(match align {
                    Align::Left => CellAlignment::Left,
                    Align::Right => CellAlignment::Right,
                });
            }
        }
        Self { look, table, rows: 0 }
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = (S, Tone)>) {
        let cells = cells.into_iter().map(|(text, tone)| {
            let cell = Cell::new(text.into());
            match (self.look.colour, tone) {
                (false, _) | (true, Tone::Plain) => cell,
                (true, Tone::Good) => cell.fg(Color::Green),
                (true, Tone::Warning) => cell.fg(Color::Yellow),
                (true, Tone::Bad) => cell.fg(Color::Red),
            }
        });
        self.table.add_row(cells);
        self.rows += 1;
    }

    /// The table, or `empty` when it has no rows; without trailing blanks, ending in a line break.
    pub fn render(&self, empty: &str) -> String {
        if self.rows == 0 {
            return format!("{empty}\n");
        }
        let mut text = String::new();
        for line in self.table.to_string().lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A plain cell.
pub fn plain(text: impl Into<String>) -> (String, Tone) {
    (text.into(), Tone::Plain)
}

/// A cell with a number in groups of three digits.
pub fn number(n: u64) -> (String, Tone) {
    plain(grouped(n))
}

/// Digits in groups of three.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A quantity with a decimal prefix: `1.23 M`.
pub fn scaled(value: f64) -> String {
    const STEPS: [(f64, &str); 4] = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    match STEPS.iter().find(|(step, _)| value >= *step) {
        Some((step, prefix)) => format!("{:.2}{prefix}", value / step),
        None if value >= 100.0 || value.fract() < 0.05 => format!("{value:.0}"),
        None => format!("{value:.1}"),
    }
}

/// Seconds as a person says them: `3d 4h`, `2m 5s`.
pub fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = UNITS.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let (unit, name) = UNITS[first];
    let head = format!("{}{name}", seconds / unit);
    match UNITS.get(first + 1) {
        Some((next, next_name)) if seconds % unit / next > 0 => {
            format!("{head} {}{next_name}", seconds % unit / next)
        }
        Some(_) | None => head,
    }
}

/// Columns of the terminal on standard output.
fn terminal_width() -> Option<u16> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize`, which `size` is.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col >= 40).then_some(size.ws_col)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(look: Look) -> Sheet {
        let mut sheet = Sheet::new(look, &[Column("NAME", Align::Left), Column("PACKETS", Align::Right)]);
        sheet.row([plain("web"), number(1_234_567)]);
        sheet.row([("longer-name".to_owned(), Tone::Bad), number(8)]);
        sheet
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(
            sheet(Look::PLAIN).render("none"),
            "NAME           PACKETS\nweb          1,234,567\nlonger-name          8\n"
        );
    }

    #[test]
    fn no_colour_unless_asked_for() {
        assert!(!sheet(Look::PLAIN).render("").contains('\x1b'));
    }

    #[test]
    fn empty_table_says_so() {
        let sheet = Sheet::new(Look::PLAIN, &[Column("NAME", Align::Left)]);
        assert_eq!(sheet.render("no sessions"), "no sessions\n");
    }

    #[test]
    fn numbers_and_spans() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1_000), grouped(u64::MAX)],
            ["0", "999", "1,000", "18,446,744,073,709,551,615"]
        );
        assert_eq!(
            [scaled(0.0), scaled(2.5), scaled(999.0), scaled(1_234_000.0)],
            ["0", "2.5", "999", "1.23 M"]
        );
        assert_eq!(
            [span(0), span(59), span(125), span(3_600), span(273_700)],
            ["0s", "59s", "2m 5s", "1h", "3d 4h"]
        );
    }
}
