"""What can be rented, and at what price: accelerators and the clouds' instances, as data with dates and sources."""
