//! Every metric family is declared here and nowhere else; exporter, dashboards and documentation read this table.
