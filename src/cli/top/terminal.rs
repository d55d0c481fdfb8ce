//! The terminal: taken over while the picture is shown, and given back however that ends.

use super::frame::{Line, Style};
use crossterm::event::{self, Event};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{QueueableCommand as _, cursor, execute};
use std::io::{self, Write as _};
use std::sync::Once;
use std::time::Duration;

/// The terminal while it is ours: raw, on its alternate screen, without a cursor.
pub(super) struct Screen(());

impl Screen {
    /// Takes the terminal over. A panic gives it back before it says what it has to say.
    pub(super) fn enter() -> io::Result<Screen> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        terminal::enable_raw_mode()?;
        let screen = Screen(());
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> io::Result<(usize, usize)> {
        terminal::size().map(|(columns, lines)| (usize::from(columns), usize::from(lines)))
    }

    /// Whether a key was pressed or the size changed, within this time.
    pub(super) fn has_event(&self, within: Duration) -> io::Result<bool> {
        event::poll(within)
    }

    /// The next of those.
    pub(super) fn event(&self) -> io::Result<Event> {
        event::read()
    }

    /// Shows a picture, at once.
    pub(super) fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut picture = Vec::with_capacity(16 << 10);
        picture.queue(BeginSynchronizedUpdate)?.queue(cursor::MoveTo(0, 0))?;
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                picture.queue(Print("\r\n"))?;
            }
            paint(&mut picture, line)?;
        }
        picture.queue(Clear(ClearType::FromCursorDown))?.queue(EndSynchronizedUpdate)?;
        let mut out = io::stdout().lock();
        out.write_all(&picture)?;
        out.flush()
    }
}

fn paint(picture: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    for (text, style) in &line.0 {
        match style {
            Style::Plain => {}
            Style::Bold => drop(picture.queue(SetAttribute(Attribute::Bold))?),
            Style::Dim => drop(picture.queue(SetAttribute(Attribute::Dim))?),
            Style::Good => drop(picture.queue(SetForegroundColor(Color::Green))?),
            Style::Bad => drop(picture.queue(SetForegroundColor(Color::Red))?),
            Style::Selected => drop(picture.queue(SetAttribute(Attribute::Reverse))?),
        }
        picture.queue(Print(text))?.queue(ResetColor)?.queue(SetAttribute(Attribute::Reset))?;
    }
    picture.queue(Clear(ClearType::UntilNewLine)).map(drop)
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // Where the terminal is gone there is nothing to give back.
    let _ = execute!(io::stdout(), cursor::Show, LeaveAlternateScreen);
    let _ = terminal::disable_raw_mode();
}
