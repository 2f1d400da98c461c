//! Why a connection ends: close codes and reasons as both sides put them into a close frame.
//!
//! Used by the codec for what the client sends and by every caller of `Outbound::close`. A
//! [`CloseCode`] is one that may travel: 1005, 1006 and 1015 and the unassigned ranges are not
//! representable.

use std::fmt;

/// A status code that RFC 6455 section 7.4 and the IANA registry allow in a close frame:
/// 1000 to 1003, 1007 to 1014, 3000 to 4999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server shuts down, or the browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the framing rules.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that this endpoint does not take.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1007: a text message or a close reason that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: a rule of the application was broken.
    pub const POLICY: Self = Self(1008);
    /// 1009: a message larger than this endpoint is willing to skip.
    pub const TOO_LARGE: Self = Self(1009);
    /// 1011: the server met a condition that it did not expect.
    pub const INTERNAL: Self = Self(1011);
    /// 1012: the server restarts; the client may reconnect.
    pub const RESTART: Self = Self(1012);
    /// 1013: the server is overloaded; the client should reconnect later.
    pub const TRY_LATER: Self = Self(1013);

    /// The code, if it may appear in a close frame.
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The code as it stands in the frame.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The body of a close frame: a code and a reason of at most 123 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    code: CloseCode,
    reason: String,
}

impl Close {
    /// What fits beside the code into the 125 bytes of a control frame.
    pub const MAX_REASON: usize = 123;

    /// A close body; a reason over [`Close::MAX_REASON`] bytes is cut at a character's boundary.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.len() > Self::MAX_REASON {
            reason.truncate(reason.floor_char_boundary(Self::MAX_REASON));
        }
        Self { code, reason }
    }

    /// The status code.
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// The reason; empty when none was given.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl From<CloseCode> for Close {
    fn from(code: CloseCode) -> Self {
        Self {
            code,
            reason: String::new(),
        }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_may_travel_exist() {
        for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(CloseCode::new(code).map(CloseCode::get), Some(code));
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            assert_eq!(CloseCode::new(code), None, "{code}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let close = Close::new(CloseCode::NORMAL, "é".repeat(100));
        assert_eq!(close.reason(), "é".repeat(61));
    }
}
