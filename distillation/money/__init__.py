"""What distillation costs and saves: prices, the ledger of what was spent, break-even, and how sure that is."""
