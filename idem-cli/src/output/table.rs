//! Tables with aligned columns.

use std::io::{self, Write};

use super::text::safe;

/// A table. Its cells must not contain secrets; they are made safe for a terminal.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.iter().map(ToString::to_string).collect()],
        }
    }

    /// A table without a head.
    pub(crate) fn plain() -> Self {
        Self { rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| safe(&cell)).into());
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell: &String| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns)
            .map(|at| width(at).unwrap_or_default())
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let padding = width - cell.chars().count() + 2;
                line.extend(std::iter::repeat_n(' ', padding));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_are_safe() {
        let mut table = Table::new(["id", "label"]);
        table.row(["größe".to_owned(), "a\nb".to_owned()]);
        table.row(["x".to_owned(), String::new()]);
        let mut out = Vec::new();
        table.print(&mut out).expect("it prints");
        let text = String::from_utf8(out).expect("UTF-8");
        assert_eq!(text, "id     label\ngröße  a\\nb\nx\n");
    }
}
