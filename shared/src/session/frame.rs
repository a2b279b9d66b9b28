//! From requests to frames.

/// A frame in the making: one request as it is, several as an array.
#[derive(Default)]
pub(super) struct Frame {
    text: String,
    requests: usize,
}

impl Frame {
    /// Bytes of the brackets around an array.
    pub(super) const BRACKETS: usize = 2;

    pub(super) fn is_empty(&self) -> bool {
        self.requests == 0
    }

    pub(super) fn has_room(&self, bytes: usize, bytes_max: usize, requests_max: usize) -> bool {
        let comma = 1;
        self.is_empty()
            || (self.requests < requests_max && self.text.len() + comma + bytes < bytes_max)
    }

    pub(super) fn push(&mut self, request: &str) {
        match self.requests {
            0 => self.text.push_str(request),
            1 => {
                self.text.insert(0, '[');
                self.text.push(',');
                self.text.push_str(request);
            }
            _ => {
                self.text.push(',');
                self.text.push_str(request);
            }
        }
        self.requests += 1;
    }

    pub(super) fn finish(mut self) -> String {
        if self.requests > 1 {
            self.text.push(']');
        }
        self.text
    }
}
