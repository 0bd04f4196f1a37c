//! `weir ls` and `weir details`.

use serde_json::Value;

use super::{
    Context,
    exit::Exit,
    flags::{DetailsFlags, LsFlags},
    output::Style,
};

/// Columns of a list for people: fields of the server, and what they are called.
const COLUMNS: [(&str, &str); 3] =
    [("name", "NAME"), ("next_offset", "RECORDS"), ("created_at", "CREATED")];

pub(super) async fn ls(context: Context, flags: LsFlags) -> anyhow::Result<Exit> {
    let mut after: Option<String> = None;
    loop {
        let rows = context.client.list(&flags.prefix, after.as_deref()).await?;
        print(&context, &rows, after.is_none())?;
        let last = rows.last().and_then(|row| row.get("name")).and_then(Value::as_str);
        match last {
            // A server that does not page would begin again.
            Some(last) if after.as_deref().is_none_or(|after| after < last) => {
                after = Some(last.to_owned());
            }
            _ => return Ok(Exit::Done),
        }
        if context.interrupt.came() {
            return Ok(Exit::Interrupted);
        }
    }
}

fn print(context: &Context, rows: &[Value], first: bool) -> anyhow::Result<()> {
    let text = |row: &Value, field: &str| match row.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    };
    let mut out = String::new();
    match context.output.style() {
        Style::Json => rows.iter().for_each(|row| out.push_str(&format!("{row}\n"))),
        Style::Plain => {
            rows.iter().for_each(|row| out.push_str(&format!("{}\n", text(row, "name"))))
        }
        Style::Pretty => {
            let mut table: Vec<[String; 3]> = Vec::new();
            if first {
                table.push(COLUMNS.map(|(_, title)| title.to_owned()));
            }
            table.extend(rows.iter().map(|row| COLUMNS.map(|(field, _)| text(row, field))));
            let width =
                |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
            let (names, records) = (width(0), width(1));
            for [name, record, created] in &table {
                out.push_str(&format!("{name:names$}  {record:>records$}  {created}\n"));
            }
        }
    }
    context.output.print(out.as_bytes())
}

pub(super) async fn details(context: Context, flags: DetailsFlags) -> anyhow::Result<Exit> {
    let details = match &flags.stream {
        Some(stream) => context.client.stream(stream).details().await?,
        None => context.client.details().await?,
    };
    context.output.document(&details)?;
    Ok(Exit::Done)
}
