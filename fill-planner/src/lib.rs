//! The fill planner: yesterday's demand decides what edges shall hold today. Run by cron, it
//! asks the control plane for its input, plans ([`plan()`], a pure function), shows the plan, and
//! publishes it.

mod command;
mod error;
mod plan;
mod settings;
mod show;

pub use command::{Command, Run, run, run_to};
pub use error::Error;
pub use plan::{EdgePlan, Planned, Row, Verdict, plan};
pub use settings::{Config, Settings};
