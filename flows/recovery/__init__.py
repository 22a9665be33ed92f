"""Recovery folders: claimed, rewound, gathered, kept up, moved."""
