//! `sinew top`: the router on this machine, live.

use super::failure::Failure;
use super::output;
use super::router::Router;
use super::stop::Stop;
use crate::config::units;
use crate::wire::admin::{Request, Response};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use frame::Settings;
use model::{Sample, View};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use terminal::Screen;

mod frame;
mod model;
mod terminal;

/// Watch the router on this machine: links, lanes, workers, rates, loss, and where time goes
///
/// Rates and histograms are of the last interval. The lower part shows the stages of the selected link's messages, each
/// as a distribution over a logarithmic axis; `sinew show latency --help` says what the stages are.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sinew top
  sinew top -i 5
  sinew top --once
  sinew top --once --json | jq '.links[] | select(.loss_percent > 1)'

Keys: q or Ctrl-C quits, up and down select a link, left and right choose the column to sort by,
r turns the order round, l shows each link's lanes, space holds the picture.
JSON keys: router, version, io, seconds (length of the interval), workers, links (each with its
lanes); rates per second end in _per_s, bits per second in _bit_per_s.

Exit codes: 0 done, 1 it could not be shown, 2 wrong command line, 3 no router answers.")]
pub(super) struct Args {
    /// Time between two looks (`2`, `500ms`)
    #[arg(short, long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print one picture, of one interval, and end
    #[arg(long)]
    once: bool,
    /// Print it as JSON, one document on one line
    #[arg(long, requires = "once")]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = units::duration_or_seconds(text)?;
    if interval < Duration::from_millis(100) { Err("give at least 100ms".to_owned()) } else { Ok(interval) }
}

pub(super) fn run(socket: Option<PathBuf>, args: Args) -> Result<(), Failure> {
    let router = Router::connect(socket.clone())?;
    if args.once {
        return print_once(&router, &args);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("this is no terminal: `sinew top --once` prints one picture".to_owned()));
    }
    let first = Sample::take(&router)?;
    let stop = Stop::on_signals();
    let mut screen = Screen::enter().map_err(|error| Failure::failed("the terminal cannot be used", error))?;
    let watched = Top::new(socket, router, first, args.interval).watch(&mut screen, &stop);
    drop(screen);
    watched
}

fn print_once(router: &Router, args: &Args) -> Result<(), Failure> {
    let stop = Stop::on_signals();
    let before = Sample::take(router)?;
    stop.sleep_until(Instant::now() + args.interval);
    if stop.is_set() {
        return Err(Failure::Interrupted);
    }
    let view = View::new(&Sample::take(router)?, Some(&before))?;
    if args.json {
        return output::json(&view);
    }
    let lines = frame::lines(&view, &Settings { lanes: true, ..Settings::default() }, None);
    let text: String = lines.iter().map(|line| line.text().trim_end().to_owned() + "\n").collect();
    output::print(text)
}

/// The live picture.
struct Top {
    socket: Option<PathBuf>,
    router: Router,
    interval: Duration,
    settings: Settings,
    sample: Sample,
    view: Option<View>,
    /// What is wrong at the moment.
    trouble: Option<String>,
    held: bool,
}

impl Top {
    fn new(socket: Option<PathBuf>, router: Router, sample: Sample, interval: Duration) -> Top {
        let settings = Settings::default();
        Top { socket, router, interval, settings, sample, view: None, trouble: None, held: false }
    }

    fn watch(mut self, screen: &mut Screen, stop: &Stop) -> Result<(), Failure> {
        let broken = |error| Failure::failed("the terminal cannot be used", error);
        self.view = Some(View::new(&self.sample, None)?);
        let mut next = Instant::now() + self.interval;
        while !stop.is_set() {
            self.draw(screen).map_err(broken)?;
            let wait = next.saturating_duration_since(Instant::now()).min(super::stop::LOOK);
            if screen.has_event(wait).map_err(broken)? {
                let event = screen.event().map_err(broken)?;
                if self.handle(&event) {
                    return Ok(());
                }
            }
            if Instant::now() >= next {
                next = Instant::now() + self.interval;
                self.look()?;
            }
        }
        Ok(())
    }

    /// Takes a sample. A router that is gone may come back.
    fn look(&mut self) -> Result<(), Failure> {
        if self.held {
            return Ok(());
        }
        match Sample::take(&self.router) {
            Ok(sample) => {
                self.view = Some(View::new(&sample, Some(&self.sample))?);
                (self.sample, self.trouble) = (sample, None);
            }
            // It stops, or is gone, or is a new one that this connection does not lead to.
            Err(failure) => {
                let why = failure.message().unwrap_or_default();
                self.trouble = Some(why.lines().next().unwrap_or_default().to_owned());
                if let Ok(router) = Router::connect(self.socket.clone()) {
                    self.router = router;
                }
            }
        }
        Ok(())
    }

    fn draw(&self, screen: &mut Screen) -> std::io::Result<()> {
        let Some(view) = &self.view else { return Ok(()) };
        let mut lines = frame::lines(view, &self.settings, screen.size()?.into());
        let note = self.trouble.clone().or_else(|| self.held.then(|| "held: space goes on".to_owned()));
        if let (Some(note), Some(line)) = (note, lines.get_mut(1)) {
            *line = frame::Line::alert(note);
        }
        screen.draw(&lines)
    }

    /// Does what a key says. True if that is to end.
    fn handle(&mut self, event: &Event) -> bool {
        let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return false };
        let links = self.view.as_ref().map_or(0, |view| view.links.len());
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Up | KeyCode::Char('k') => self.settings.selected = self.settings.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => {
                self.settings.selected = (self.settings.selected + 1).min(links.saturating_sub(1));
            }
            KeyCode::Right | KeyCode::Char('s') => self.settings.sort = self.settings.sort.next(),
            KeyCode::Left => self.settings.sort = self.settings.sort.previous(),
            KeyCode::Char('r') => self.settings.reversed = !self.settings.reversed,
            KeyCode::Char('l') => self.settings.lanes = !self.settings.lanes,
            KeyCode::Char(' ') => self.held = !self.held,
            _ => {}
        }
        false
    }
}

fn unexpected() -> Failure {
    Failure::Failed("the router gave another answer than was asked for: are both of the same version?".to_owned())
}

/// Asks for everything counted, histograms among it.
fn ask(router: &Router) -> Result<Vec<serde_json::Value>, Failure> {
    let Response::Stats { workers } = router.request(&Request::Histograms)? else { return Err(unexpected()) };
    Ok(workers)
}
