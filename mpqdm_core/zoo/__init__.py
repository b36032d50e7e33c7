"""The bundled models: the pictures they learn from, their training, their measured quality."""
