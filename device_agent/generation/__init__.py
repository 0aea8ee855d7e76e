"""From a prompt to an answer: corrected states, sampling, drafts."""
