//! Reading from the left to the right: blanks, comments, words, numbers.

/// What a script has at a place where it should have something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexpected {
    /// Its line.
    pub line: usize,
    /// What should be there.
    pub wanted: String,
}

/// A place in a text.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// The beginning.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// What follows.
    #[must_use]
    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The number of the line.
    #[must_use]
    pub fn line(&self) -> usize {
        self.text[..self.at].matches('\n').count() + 1
    }

    /// Bytes before.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The text since an earlier place, on one line.
    #[must_use]
    pub fn since(&self, at: usize) -> String {
        self.text[at..self.at].split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// An error at this place.
    #[must_use]
    pub fn wrong(&self, wanted: impl Into<String>) -> Unexpected {
        Unexpected { line: self.line(), wanted: wanted.into() }
    }

    /// Goes on behind so many bytes.
    pub fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Goes on behind blanks and comments.
    pub fn blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            let comment = if trimmed.starts_with("//") || trimmed.starts_with('#') {
                trimmed.find('\n').unwrap_or(trimmed.len())
            } else if trimmed.starts_with("/*") {
                trimmed.find("*/").map_or(trimmed.len(), |end| end + 2)
            } else {
                return;
            };
            self.at += comment;
        }
    }

    /// Whether this follows.
    #[must_use]
    pub fn sees(&mut self, word: &str) -> bool {
        self.blank();
        self.rest().starts_with(word)
    }

    /// Goes on behind it, if it follows.
    pub fn takes(&mut self, word: &str) -> bool {
        let sees = self.sees(word);
        if sees {
            self.at += word.len();
        }
        sees
    }

    /// The same for a whole word.
    pub fn takes_word(&mut self, word: &str) -> bool {
        let mut ahead = *self;
        let is = ahead.word().is_some_and(|found| found == word);
        if is {
            *self = ahead;
        }
        is
    }

    /// Goes on behind it.
    ///
    /// # Errors
    /// Something else is there.
    pub fn needs(&mut self, word: &str) -> Result<(), Unexpected> {
        if self.takes(word) { Ok(()) } else { Err(self.wrong(format!("`{word}`"))) }
    }

    fn span(&mut self, is_part: impl Fn(char) -> bool) -> Option<&'a str> {
        self.blank();
        let rest = self.rest();
        let end = rest.find(|letter: char| !is_part(letter)).unwrap_or(rest.len());
        self.at += end;
        (end > 0).then(|| &rest[..end])
    }

    /// Letters, digits and underscores that don't begin with a digit.
    pub fn word(&mut self) -> Option<&'a str> {
        self.blank();
        let first = self.rest().chars().next()?;
        if first.is_ascii_digit() {
            return None;
        }
        self.span(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    }

    /// Letters and digits, as a cookie has them.
    pub fn hex(&mut self) -> Option<&'a str> {
        let mut ahead = *self;
        let found = ahead.span(|letter| letter.is_ascii_hexdigit())?;
        *self = ahead;
        Some(found)
    }

    /// A whole number, decimal or hexadecimal, with a sign.
    pub fn number(&mut self) -> Option<i64> {
        let mut ahead = *self;
        let negative = ahead.takes("-");
        let is_hex = ahead.sees("0x");
        if is_hex {
            ahead.skip(2);
        }
        let digits = ahead.span(|letter| letter.is_ascii_digit() || is_hex && letter.is_ascii_hexdigit())?;
        let number = i64::from_str_radix(digits, if is_hex { 16 } else { 10 }).ok()?;
        *self = ahead;
        Some(if negative { -number } else { number })
    }

    /// The same.
    ///
    /// # Errors
    /// None is there, or it is too large.
    pub fn needs_number<T: TryFrom<i64>>(&mut self) -> Result<T, Unexpected> {
        let number = self.number().ok_or_else(|| self.wrong("a number"))?;
        T::try_from(number).map_err(|_| self.wrong("a smaller number"))
    }

    /// Seconds with a fraction, in microseconds.
    pub fn seconds(&mut self) -> Option<i64> {
        let mut ahead = *self;
        ahead.blank();
        let rest = ahead.rest();
        let mut end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        // `0...0.2` has no fraction before the dots.
        if rest[end..].starts_with('.') && !rest[end..].starts_with("...") {
            let fraction = &rest[end + 1..];
            end += 1 + fraction.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(fraction.len());
        }
        let seconds: f64 = rest[..end].parse().ok()?;
        ahead.skip(end);
        *self = ahead;
        Some((seconds * 1e6).round() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_words_and_times_are_told_apart() {
        let mut scan = Scan::new("// first\n  +.1...0.25 name /* a\n comment */ 0x1F -3");
        assert!(scan.takes("+"));
        assert_eq!(scan.seconds(), Some(100_000));
        assert!(scan.takes("..."));
        assert_eq!((scan.seconds(), scan.line()), (Some(250_000), 2));
        assert_eq!(scan.word(), Some("name"));
        assert_eq!((scan.number(), scan.number()), (Some(31), Some(-3)));
        assert_eq!((scan.number(), scan.word(), scan.seconds()), (None, None, None));
    }
}
