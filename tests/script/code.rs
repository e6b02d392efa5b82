//! Assertions between `%{` and `}%`: the part of Python that scripts use for them.
//!
//! A line is `assert expression`, with a message behind a comma, or `print(…)`, which does nothing here.

use super::symbols;

/// Values of names.
pub type Names<'a> = &'a dyn Fn(&str) -> Option<i64>;

/// Looks at every assertion.
///
/// # Errors
/// What doesn't hold, or can't be read.
pub fn check(code: &str, names: Names<'_>) -> Result<(), String> {
    for line in
        code.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let Some(rest) = line.strip_prefix("assert") else {
            if line.starts_with("print") || line.starts_with("import") {
                continue;
            }
            return Err(format!("not an assertion: {line}"));
        };
        let mut reader = Reader { tokens: tokens(rest)?, at: 0, names, read: Vec::new() };
        let value = reader.either()?;
        match reader.peek() {
            None | Some(",") => {}
            Some(other) => return Err(format!("`{other}` in: {line}")),
        }
        if value == 0 {
            let read: Vec<String> =
                reader.read.iter().map(|(name, value)| format!("{name} is {value}")).collect();
            return Err(format!("{line}; {}", read.join(", ")));
        }
    }
    Ok(())
}

fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut left = text.trim_start();
    while let Some(first) = left.chars().next() {
        let len = if first.is_ascii_alphanumeric() || first == '_' {
            left.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(left.len())
        } else if first == '\'' || first == '"' {
            left[1..].find(first).map(|end| end + 2).ok_or("a text without end")?
        } else if ["==", "!=", "<=", ">=", "<<", ">>", "//"].iter().any(|two| left.starts_with(two)) {
            2
        } else {
            first.len_utf8()
        };
        found.push(left[..len].to_owned());
        left = left[len..].trim_start();
    }
    Ok(found)
}

struct Reader<'a> {
    tokens: Vec<String>,
    at: usize,
    names: Names<'a>,
    read: Vec<(String, i64)>,
}

const COMPARISONS: &[&str] = &["==", "!=", "<", ">", "<=", ">="];

/// Operators that bind equally, the loosest first.
const LEVELS: &[&[&str]] = &[&["|"], &["^"], &["&"], &["<<", ">>"], &["+", "-"], &["*", "/", "//", "%"]];

impl Reader<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn takes(&mut self, token: &str) -> bool {
        let is = self.peek() == Some(token);
        self.at += usize::from(is);
        is
    }

    fn either(&mut self) -> Result<i64, String> {
        let mut value = self.both()?;
        while self.takes("or") {
            value |= i64::from(self.both()? != 0);
        }
        Ok(value)
    }

    fn both(&mut self) -> Result<i64, String> {
        let mut value = self.negated()?;
        while self.takes("and") {
            let other = self.negated()?;
            value = i64::from(value != 0 && other != 0);
        }
        Ok(value)
    }

    fn negated(&mut self) -> Result<i64, String> {
        if self.takes("not") {
            return Ok(i64::from(self.negated()? == 0));
        }
        self.comparison()
    }

    /// `a < b < c` is both of them.
    fn comparison(&mut self) -> Result<i64, String> {
        let first = self.level(0)?;
        let (mut left, mut holds) = (first, None);
        while let Some(operator) = self.peek().filter(|token| COMPARISONS.contains(token)).map(str::to_owned)
        {
            self.at += 1;
            let right = self.level(0)?;
            let is = match operator.as_str() {
                "==" => left == right,
                "!=" => left != right,
                "<" => left < right,
                ">" => left > right,
                "<=" => left <= right,
                _ => left >= right,
            };
            holds = Some(holds.unwrap_or(true) && is);
            left = right;
        }
        Ok(holds.map_or(first, i64::from))
    }

    fn level(&mut self, level: usize) -> Result<i64, String> {
        let Some(operators) = LEVELS.get(level) else { return self.single() };
        let mut value = self.level(level + 1)?;
        while let Some(operator) = self.peek().filter(|token| operators.contains(token)).map(str::to_owned) {
            self.at += 1;
            let other = self.level(level + 1)?;
            value = match operator.as_str() {
                "|" => value | other,
                "^" => value ^ other,
                "&" => value & other,
                "<<" => value << other,
                ">>" => value >> other,
                "+" => value + other,
                "-" => value - other,
                "*" => value * other,
                "%" => value.checked_rem(other).ok_or("a division by zero")?,
                _ => value.checked_div(other).ok_or("a division by zero")?,
            };
        }
        Ok(value)
    }

    fn single(&mut self) -> Result<i64, String> {
        let token = self.peek().ok_or("an expression without end")?.to_owned();
        self.at += 1;
        if token == "(" {
            let value = self.either()?;
            return if self.takes(")") { Ok(value) } else { Err("no `)`".to_owned()) };
        }
        if token == "-" {
            return Ok(-self.single()?);
        }
        if token == "abs" {
            return Ok(self.single()?.abs());
        }
        if let Some(hex) = token.strip_prefix("0x") {
            return i64::from_str_radix(hex, 16).map_err(|error| error.to_string());
        }
        if let Ok(number) = token.parse() {
            return Ok(number);
        }
        if let Some(constant) = symbols::value(&token) {
            return Ok(constant);
        }
        let value = (self.names)(&token).ok_or_else(|| format!("no value is known for {token}"))?;
        self.read.push((token, value));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assertions_hold_or_say_why_not() {
        let names = |name: &str| (name == "tcpi_snd_cwnd").then_some(10);
        for code in [
            "assert tcpi_snd_cwnd == 10, tcpi_snd_cwnd",
            "\nassert tcpi_snd_cwnd + 2 * 3 == 16\nassert (tcpi_snd_cwnd & 2) != 0 and not 0\n",
            "assert tcpi_snd_cwnd == 10, 'cwnd=%d' % tcpi_snd_cwnd",
            "assert 1 == 2 or 9 <= tcpi_snd_cwnd <= 10",
        ] {
            assert_eq!(check(code, &names), Ok(()), "{code}");
        }
        let wrong = check("assert tcpi_snd_cwnd == 11, 'no'", &names);
        assert_eq!(wrong, Err("assert tcpi_snd_cwnd == 11, 'no'; tcpi_snd_cwnd is 10".to_owned()));
        assert!(check("assert tcpi_other == 1", &names).is_err() && check("exit()", &names).is_err());
    }
}
