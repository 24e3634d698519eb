"""Phase 8: final compression.

Importing `phases.compression.quantizer` registers `forge_compressed` with transformers, so that
`AutoModelForCausalLM.from_pretrained` opens what `phases.compression.artefact.write_artefact` wrote. Without the import
transformers only warns of an unknown method and goes on with random weights. It is not imported here, as the list of
phases is to cost no torch.
"""
