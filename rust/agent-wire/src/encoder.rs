//! Which encoder writes which form. A form that is new gets a line here, a [`Format`] and a [`FamilyVisitor`].

use agent_metric::FamilyVisitor;

use crate::format::Format;
use crate::{exposition, protobuf};

pub fn of(format: Format) -> Box<dyn FamilyVisitor> {
    match format {
        Format::Text004 | Format::OpenMetrics100 => Box::new(exposition::Encoder::new(format)),
        Format::Protobuf => Box::new(protobuf::Encoder::default()),
    }
}
