//! Server-sent events, line by line, as the HTML standard reads them (section 9.2.6, "Parsing
//! an event stream"). The agent gives it the lines of a response and gets the events' data.

/// How many bytes the data of one event may have.
pub(crate) const DATA_MAX: usize = 1 << 20;

/// What has arrived of an event that is not complete.
#[derive(Debug, Default)]
pub(crate) struct Events {
    data: Option<String>,
}

/// An event has more data than [`DATA_MAX`].
#[derive(Debug, PartialEq)]
pub(crate) struct TooLarge;

impl Events {
    /// Takes a line without its line break; gives the data of the event that it completes.
    pub(crate) fn line(&mut self, line: &str) -> Result<Option<String>, TooLarge> {
        if line.is_empty() {
            return Ok(self.data.take());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        // Comments have an empty name; other fields say nothing about what the model says.
        if field != "data" {
            return Ok(None);
        }
        let value = value.strip_prefix(' ').unwrap_or(value);
        let so_far = self.data.as_ref().map_or(0, String::len);
        if so_far + value.len() > DATA_MAX {
            return Err(TooLarge);
        }
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
            None => self.data = Some(value.to_owned()),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(body: &str) -> Vec<String> {
        let mut events = Events::default();
        let data = body.lines().filter_map(|line| events.line(line).unwrap());
        data.collect()
    }

    #[test]
    fn an_empty_line_ends_an_event() {
        assert_eq!(events("data: a\n\ndata:b\n\n"), ["a", "b"]);
        assert_eq!(events("data: a\ndata: b\n\n"), ["a\nb"]);
        assert_eq!(
            events("data:  a\n\n"),
            [" a"],
            "one space is not the data's"
        );
    }

    #[test]
    fn comments_and_other_fields_are_passed_over() {
        let body = ": wait\n\nevent: x\nid: 7\nretry\nno field at all\ndata: a\n\n";
        assert_eq!(events(body), ["a"]);
        assert_eq!(events(": wait\n\n\n\n"), [""; 0]);
    }

    #[test]
    fn an_event_that_breaks_off_is_none() {
        assert_eq!(events("data: a\n\ndata: b"), ["a"]);
    }

    #[test]
    fn data_has_a_bound() {
        let line = format!("data: {}", "x".repeat(DATA_MAX / 2));
        let mut events = Events::default();
        assert_eq!(events.line(&line), Ok(None));
        assert_eq!(events.line(&line), Ok(None));
        assert_eq!(events.line("data: x"), Err(TooLarge));
        let all = format!("data: {}", "x".repeat(DATA_MAX + 1));
        assert_eq!(Events::default().line(&all), Err(TooLarge));
    }
}
