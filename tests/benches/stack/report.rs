//! Figures by name: what a measurement's process prints for the one that asked, and reads again.

use std::collections::BTreeMap;

/// Figures by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures(BTreeMap<String, f64>);

impl Figures {
    pub(crate) fn put(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    pub(crate) fn of(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(f64::NAN)
    }

    /// One line of JSON.
    pub(crate) fn print(&self) {
        println!("{}", serde_json::to_string(&self.0).expect("numbers by name"));
    }

    /// The last line that is JSON.
    pub(crate) fn read(output: &str) -> Option<Self> {
        output.lines().rev().find_map(|line| serde_json::from_str(line).ok()).map(Self)
    }
}
