// SPDX-License-Identifier: GPL-2.0

//! Text of any length, for files whose content is made when it is read.

use core::fmt;
use kernel::prelude::*;

/// A growing text. Remembers if it once found no memory to grow; it holds only the beginning then.
#[derive(Default)]
pub(crate) struct Text {
    bytes: KVVec<u8>,
    truncated: bool,
}

impl Text {
    /// An empty text.
    pub(crate) const fn new() -> Text {
        Text {
            bytes: KVVec::new(),
            truncated: false,
        }
    }

    /// A text with this content, cut short if there is no memory.
    pub(crate) fn of(content: fmt::Arguments<'_>) -> Text {
        let mut text = Text::new();
        text.put(content);
        text
    }

    /// Appends; what does not fit is lost and remembered.
    pub(crate) fn put(&mut self, content: fmt::Arguments<'_>) {
        // The only error is lack of memory, which `truncated` tells.
        let _ = fmt::Write::write_fmt(self, content);
    }

    /// The bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the content.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.truncated = false;
    }

    /// Passes if the whole content is there.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there was no memory for all of it.
    pub(crate) fn complete(&self) -> Result {
        if self.truncated {
            Err(ENOMEM)
        } else {
            Ok(())
        }
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if !self.truncated {
            self.truncated = self
                .bytes
                .extend_from_slice(s.as_bytes(), GFP_KERNEL)
                .is_err();
        }
        if self.truncated {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

/// Appends formatted text to a [`Text`].
macro_rules! put {
    ($text:expr, $($arg:tt)*) => {
        $text.put(core::format_args!($($arg)*))
    };
}
pub(crate) use put;
