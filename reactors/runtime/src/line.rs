//! A line of text in a buffer of fixed size, as a signal handler can write it: nothing is allocated, what does not fit is
//! cut. A line for machines is the same text as a JSON object; quotes and controls within are replaced, not escaped.

/// Bytes of the longest line.
const LINE_BYTES: usize = 1536;

/// A line that is being written.
pub(crate) struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
    as_json: bool,
}

/// What closes a line: there is always room for it.
const PLAIN_END: &[u8] = b"\n";
const JSON_END: &[u8] = b"\"}\n";

impl Line {
    /// Begins a line; `level` is the severity for machines.
    pub(crate) fn new(as_json: bool, level: &str) -> Self {
        let mut line = Self { bytes: [0; LINE_BYTES], length: 0, as_json };
        if as_json {
            line.raw(b"{\"level\":\"");
            line.raw(level.as_bytes());
            line.raw(b"\",\"message\":\"");
        } else {
            line.raw(level.as_bytes());
            line.raw(b" ");
        }
        line
    }

    fn raw(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.length < LINE_BYTES - JSON_END.len() {
                self.bytes[self.length] = byte;
                self.length += 1;
            }
        }
    }

    /// Adds text.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes_of(text.as_bytes())
    }

    /// Adds bytes that are text, perhaps not of ours.
    pub(crate) fn bytes_of(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            let shown = if byte < b' ' || byte == b'"' || byte == b'\\' || byte == 0x7f { b'?' } else { byte };
            self.raw(&[shown]);
        }
        self
    }

    /// Adds a number in base 16.
    pub(crate) fn hex(&mut self, number: usize) -> &mut Self {
        self.raw(b"0x");
        self.digits(number as u64, 16)
    }

    /// Adds a number in base 10.
    pub(crate) fn decimal(&mut self, number: u64) -> &mut Self {
        self.digits(number, 10)
    }

    fn digits(&mut self, number: u64, base: u64) -> &mut Self {
        let (mut digits, mut at, mut rest) = ([0; 20], 20, number);
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(rest % base) as usize];
            rest /= base;
            if rest == 0 {
                break;
            }
        }
        self.raw(&digits[at..]);
        self
    }

    /// Ends it: what is to be written.
    pub(crate) fn end(&mut self) -> &[u8] {
        let end = if self.as_json { JSON_END } else { PLAIN_END };
        let length = self.length + end.len();
        self.bytes[self.length..length].copy_from_slice(end);
        &self.bytes[..length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text_come_as_they_are() {
        let mut line = Line::new(false, "ERROR");
        line.text("at ").hex(0).text(" ").hex(usize::MAX).text(" ").decimal(0).text(" ").decimal(u64::MAX);
        assert_eq!(line.end(), b"ERROR at 0x0 0xffffffffffffffff 0 18446744073709551615\n");
    }

    #[test]
    fn machines_get_an_object_whatever_is_in_the_text() {
        let mut line = Line::new(true, "WARN");
        line.bytes_of(b"a \"b\"\\\n\x1b");
        assert_eq!(line.end(), b"{\"level\":\"WARN\",\"message\":\"a ?b????\"}\n");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_the_line_ends_all_the_same() {
        for as_json in [false, true] {
            let mut line = Line::new(as_json, "WARN");
            line.text(&"x".repeat(2 * LINE_BYTES));
            let end = if as_json { JSON_END } else { PLAIN_END };
            assert!(line.end().ends_with(end) && line.end().len() <= LINE_BYTES);
        }
    }
}
